"""The agent's own MQTT server for modules: bytes become packets (codec), packets events (session), events deeds (local_hub)."""
