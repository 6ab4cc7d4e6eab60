"""Predictions for rows of inputs, free of HTTP."""
