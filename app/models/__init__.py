"""The model repository: scan, verify, load, swap and unload model versions."""
