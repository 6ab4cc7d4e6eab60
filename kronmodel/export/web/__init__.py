"""Export of ONNX models for the browser: a page in one file, and an ES module."""
