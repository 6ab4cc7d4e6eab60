"""The codec of the Open Inference Protocol: requests decoded to arrays, responses encoded; no HTTP, no onnxruntime."""
