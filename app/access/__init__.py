"""Access control: API keys and their roles, host names, and limits of running requests."""
