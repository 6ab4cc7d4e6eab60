"""Choice of a structure and a size for each layer of a network, and the fits of its layers in order."""
