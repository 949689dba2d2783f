"""Which samples of a video, augmented and in batches."""
