"""How a device becomes known by itself: with an enrolment key it asks its workspace for a device.toml."""
