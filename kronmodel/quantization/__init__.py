"""Quantisation-aware training: fake quantisation of weights and activations with learned step sizes; torch only."""
