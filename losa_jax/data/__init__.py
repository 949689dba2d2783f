"""Everything from files to batches: annotations, videos, features, windows."""
