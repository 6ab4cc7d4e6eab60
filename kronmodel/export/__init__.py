"""ONNX export: the graph, its passes, the model card, and the model repository; alone imports onnx."""
