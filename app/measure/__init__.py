"""Comparisons and sweeps: latency, memory and accuracy of models, measured in processes of their own."""
