"""Helpers of jobs: atomic writes, names of files, compiled programs."""
