"""Data sets in TensorFlow Datasets' format."""
