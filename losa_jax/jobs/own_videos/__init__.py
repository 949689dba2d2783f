"""From a folder of videos and annotations to a recipe."""
