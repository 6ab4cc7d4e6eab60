"""ONNX graphs as torch modules, for the training of their weights."""
