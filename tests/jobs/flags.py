"""Turns a config into flags of the command line."""

from configs import quick


def flags_of(config):
    """Returns the flags that turn quick.py into this config."""
    plain = quick.get_config().to_dict()
    return ["--config=configs/quick.py", *(
        f"--config.{section}.{key}={value}"
        for section, values in config.to_dict().items()
        if isinstance(values, dict) for key, value in values.items()
        if plain[section][key] != value)]
