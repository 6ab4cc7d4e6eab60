"""The Open Inference Protocol's codec: bytes and JSON to arrays and back. No HTTP, no models."""
