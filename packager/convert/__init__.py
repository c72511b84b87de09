"""A trained model becomes ONNX: converted in a sandbox, checked against the original, optimised, measured, recorded."""
