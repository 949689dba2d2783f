"""Your own videos: one annotation JSON and one folder of videos.

    python -m losa_jax.convert MCG-NJU/videomae-small-finetuned-kinetics \
        --output=backbones/vit_small
    python -m losa_jax.main --config=configs/custom.py --workdir=runs/mine \
        --config.data.annotations=annotations.json \
        --config.data.videos=videos \
        --config.backbone.checkpoint=backbones/vit_small

The defaults suit some tens to hundreds of videos with actions of about half
a second to half a minute: 10 samples a second whatever the file's rate,
windows of 25.6 s. For longer actions lower `window.sample_fps`, for shorter
ones raise it. Set `augment.flip_probability=0.0` if left and right distinguish
classes.
Hardware, time and result depend on your data; docs/measured.md has those of
36 short videos on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.get_config()
    config.name = "custom"
    config.window.sampling = "fps"
    config.window.sample_fps = 10.0
    config.window.samples = 256
    config.window.tokens = 128
    config.augment.size = 112
    config.augment.test_resize = "squash"
    config.augment.crop_area = (0.6, 1.0)
    config.augment.color_jitter = 0.2
    config.adapter.num_taps = 3
    config.head.width = 128
    config.head.num_levels = 5
    config.head.attention_window = (19,)
    config.loss.initial_normalizer = 50.0
    config.train.epochs = 30
    config.train.schedule_epochs = 30
    config.train.warmup_epochs = 2.0
    config.train.learning_rate = 1e-3
    config.train.ema_decay = 0.99
    config.train.ema_warmup = True
    # Epochs of tens of videos are short, and a save takes seconds on a CPU.
    config.train.checkpoint_every_epochs = 5
    config.train.evaluate_every_epochs = 5
    config.train.evaluate_from_epoch = 10
    config.evaluate.nms_sigma = 0.5
    config.evaluate.max_detections = 200
    return config
