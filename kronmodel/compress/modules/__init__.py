"""Compression of torch modules: the layers that can be replaced, and the modules that replace them."""
