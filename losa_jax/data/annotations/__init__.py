"""Annotation files of every layout, checked and made into one."""
