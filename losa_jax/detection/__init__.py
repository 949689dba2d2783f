"""From arrays to actions and back. Knows nothing of data and models."""
