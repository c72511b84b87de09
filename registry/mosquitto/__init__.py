"""Mosquitto as the control plane's broker for devices elsewhere: TLS, a login for each device, rules about topics."""
