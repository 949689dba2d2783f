"""Features in files: of other tools, and cached ones of our backbones."""
