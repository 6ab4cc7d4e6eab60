"""Comparisons and sweeps: latency, memory and accuracy of models, measured in child processes."""
