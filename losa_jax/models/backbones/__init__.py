"""Frozen video backbones."""
