"""Direct methods: what the workspace may ask of this device and its modules while it is connected (``desk.py`` is the story)."""
