"""Arrays in, arrays out. Knows nothing of files, except `weights`."""
