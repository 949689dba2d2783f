"""Adapters beside the frozen backbone, and inside it."""
