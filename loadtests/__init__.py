"""Benchmarks and load tests: commands that print measured values, never timed assertions."""
