"""Native code for CPUs: C sources that this machine's compiler builds on first use."""
