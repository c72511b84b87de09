"""What would go wrong with a manifest, told before it reaches anybody. ``lint.py`` is the story; nothing here asks a server."""
