"""Mine hard negatives for training."""
