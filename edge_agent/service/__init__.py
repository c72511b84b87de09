"""The agent as a service of its machine: told to systemd, watched by it, installed, and replaced by a newer one."""
