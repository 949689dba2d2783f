"""The rendered data set of the quick start."""
