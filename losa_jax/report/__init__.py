"""HTML pages, images and text files of results, for people."""
