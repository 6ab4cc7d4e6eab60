"""Data sets as numpy arrays: known by name or read from the user's files; never imports torch."""
