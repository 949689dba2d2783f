"""The recipe of one's own videos with sizes, which a job would fit to data."""

from configs import custom


def custom_config():
    """Returns configs/custom.py with a number for each key that is fitted."""
    config = custom.get_config()
    config.window.sample_fps = 10.0
    config.window.samples, config.window.tokens = 256, 128
    config.window.per_video = 1
    config.augment.size = 112
    config.head.num_levels = 5
    config.train.epochs = config.train.schedule_epochs = 30
    config.train.evaluate_every_epochs = 5
    config.train.checkpoint_every_epochs = 5
    return config
