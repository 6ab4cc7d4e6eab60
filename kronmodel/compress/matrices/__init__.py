"""Matrices of layers: moments of their inputs, structures that can replace them, and the fits of those."""
