"""Whether the rows of a batch are independent of each other, by a model's graph; see `analysis.py`.

Imports onnx, so that only the process of the smoke test loads it.
"""
