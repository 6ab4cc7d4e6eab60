"""Compression of ONNX files: what `kronmodel compress` does, from reading a file to publishing the result."""
