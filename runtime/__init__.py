"""The scoring server inside an image, and ``python -m runtime.prove``.

A request's way: `front/` (HTTP on an event loop) → `routes.py` → `aml/face.py` or `oip/face.py` (the two contracts, bytes in and
bytes out) → `scoring.py` (the story, read it first) → `models/model_lane.py` (ONNX) or `scripts/pool.py` (processes of a script),
and back by a call. Around it: `server.py`, `arbiter.py`, `worker.py` (processes), `observing/` (what is told about requests).
"""
