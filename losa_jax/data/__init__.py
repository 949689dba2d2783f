"""From files to batches: annotations, videos, features, windows."""
