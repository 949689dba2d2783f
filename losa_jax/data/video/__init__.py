"""Video files: opened, probed and decoded."""
