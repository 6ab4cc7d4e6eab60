"""Commands of `kronserve`."""
