"""Compression of ONNX graphs: finds layers with constant weights, replaces them, quantises, and measures the result."""
