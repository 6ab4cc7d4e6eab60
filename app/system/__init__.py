"""The machine: CPUs, memory, files, sockets, processes. Knows no models."""
