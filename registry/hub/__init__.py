"""The hub: speaks MQTT with every device. Telemetry in, acknowledgements and desired states out (hub.py is the story)."""
