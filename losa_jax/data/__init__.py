"""Everything from files to batches: annotations, videos, features, windows.

`records` has the plain dataclasses, `windows/batch.py` says what a batch holds.
"""
