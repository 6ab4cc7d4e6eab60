"""Compression of trained networks: structured replacements of their matrices, fitted to the layers' outputs."""
