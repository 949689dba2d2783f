"""Several processes, devices and remote work directories."""
