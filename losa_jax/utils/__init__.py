"""Helpers that know nothing of the subject."""
