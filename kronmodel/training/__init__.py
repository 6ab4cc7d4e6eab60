"""Training: loop, configuration, augmentation, checkpoints and distributed training."""
