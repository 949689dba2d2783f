"""Trained models on windows and on videos."""
