"""A trained model becomes ONNX: opened and converted in a jail, checked against the original, optimised, measured, recorded."""
