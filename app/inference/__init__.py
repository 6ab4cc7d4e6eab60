"""onnxruntime sessions: their devices, batching, scheduling and placement."""
