"""Inputs of a comparison: the interface of the models, uploaded and generated arrays."""
