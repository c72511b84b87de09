"""The early check of a scoring script: `check_source.py` is the story. Scripts are read here, never run."""
