"""The embedded MQTT broker: one small process, loopback only, nothing kept across a restart."""
