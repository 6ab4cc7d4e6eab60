"""Data sets as numpy arrays: named data sets and the user's own files; never imports torch."""
