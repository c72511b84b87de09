"""Models, a scoring script and an environment become an OCI image: `build.py` is the story, read it first."""
