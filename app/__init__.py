"""HTTP service that runs ONNX models with onnxruntime. Imports neither torch nor kronmodel."""
