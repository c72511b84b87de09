"""``python -P -m runtime.prove``: measures a model and answers in JSON; packager and devices run it as a process.

`vectors.py` (what to feed it) → `measure.py` (the story) → ProofReport. `--describe` only tells inputs and outputs.
"""
