"""Thousands of devices in one process, on a real hub through a real broker: ``python -m loadtests.fleet_sim``."""
