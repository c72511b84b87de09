"""What is told about requests: metrics, access log, traces, collected data, messages of an edge module."""
