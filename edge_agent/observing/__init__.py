"""What the agent tells Prometheus: counters, gauges, what modules and the machine use."""
