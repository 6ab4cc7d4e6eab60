"""The child processes that measure; each imports only what it needs."""
