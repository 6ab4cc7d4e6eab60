"""Background jobs: one at a time, followed by clients, kept in a store."""
