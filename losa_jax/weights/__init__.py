"""Checkpoints in and out, one module a family with one table of names."""
