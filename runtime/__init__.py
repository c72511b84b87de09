"""The scoring server inside an image, and ``python -m runtime.prove``.

A request's way: `worker.py` (gunicorn) → `app.py` (HTTP by Flask) → `aml.py` or `oip.py` (the two contracts, bytes in and
bytes out) → `scoring.py` (the story, read it first) → `lane.py` (bounded, timed) → `onnx_model.py` or `script.py`.
"""
