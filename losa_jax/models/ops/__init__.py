"""Layers and functions that backbones, adapters and heads are made of."""
