"""A config as the flags that a command line needs for it."""

from configs import quick


def flags_of(config):
    """What the command line must say to make quick.py this config."""
    plain = quick.get_config().to_dict()
    return ["--config=configs/quick.py", *(
        f"--config.{section}.{key}={value}"
        for section, values in config.to_dict().items()
        if isinstance(values, dict) for key, value in values.items()
        if plain[section][key] != value)]
