"""The command `kronserve`."""
