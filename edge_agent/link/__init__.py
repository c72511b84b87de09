"""The way to the hub and back: connection, protocol, desired states, reports."""
