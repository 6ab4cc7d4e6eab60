"""Who may call: API keys and roles, host names, admission of requests."""
