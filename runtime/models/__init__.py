"""ONNX models: read, tried out, run in lanes, loaded and unloaded."""
