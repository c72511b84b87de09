"""The device side: keeps modules alive, stores their telemetry until the hub has it, and reports. Knows no registry code."""
