"""Thousands of devices in one process, on a real hub through a real broker: ``hedgerow-fleet-sim``."""
