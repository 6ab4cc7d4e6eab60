"""PyTorch functions, layers and networks; imports torch alone."""
