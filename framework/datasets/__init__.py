"""Files of training data: read and checked row by row, split, and looked over for what should be known before training."""

SPLITS = ("train", "validation", "test")
