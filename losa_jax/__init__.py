"""Temporal action localization in JAX: LoSA adapters beside a frozen ViT."""
