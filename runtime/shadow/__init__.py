"""``python -P -m runtime.shadow``: asks a module's shadow what the module was asked, and compares. Read ``comparer.py`` first."""
