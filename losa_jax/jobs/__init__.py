"""What a user can ask of a config, one file each."""
