"""Helpers: atomic writes, recipes, the command line, process settings."""
