"""The training loop and its parts: configuration, augmentation, checkpoints, distribution."""
