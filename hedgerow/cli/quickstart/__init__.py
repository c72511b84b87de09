"""``hedgerow quickstart``: one real thing through every part of Hedgerow, on this machine."""
