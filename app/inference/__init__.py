"""onnxruntime sessions: devices, batching, scheduling, and placement on the event loop or in threads."""
