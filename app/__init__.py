"""The service: ONNX models in, predictions out. Imports neither torch nor kronmodel."""
