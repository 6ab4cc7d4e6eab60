"""The service: ONNX in, predictions out. Importing it loads neither torch nor kronmodel."""
