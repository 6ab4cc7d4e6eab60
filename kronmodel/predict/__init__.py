"""Predictions of exported models for files of rows, with onnxruntime and without torch."""
