"""Kronecker functions, layers and networks in PyTorch; the only dependency is torch."""
