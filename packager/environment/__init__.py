"""Python environments: what was asked for becomes a lock, and a lock becomes layers."""
