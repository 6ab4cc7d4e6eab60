"""ONNX export: the graph, its passes, the model card and the model repository; the only package that imports onnx."""
