"""The machine: CPUs, GPUs, memory, files, sockets. Knows nothing of models."""
