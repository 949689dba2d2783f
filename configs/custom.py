"""Your own videos: one annotation JSON and one folder of videos.

    python -m losa_jax.main --config=configs/custom.py --workdir=runs/mine \
        --config.data.annotations=annotations.json --config.data.videos=videos

`python -m losa_jax.init FOLDER` writes such a recipe for the videos and
annotations in a folder.

Sample rate, window, levels of the head and epochs are fitted to the lengths of
the actions and the number of videos, and printed; each can be set on the
command line. The backbone is fetched by its name from the Hugging Face hub
(88 MB, license CC-BY-NC-4.0); --config.backbone.checkpoint=FOLDER takes a
converted one. Videos are not mirrored, because left and right may distinguish
classes: where they do not, set `augment.flip_probability=0.5`.
Hardware, time and result depend on your data; docs/measured.md has those of
36 short videos on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.get_config()
    config.name = "custom"
    config.window.sampling = "fps"
    config.window.sample_fps = 0.0
    config.window.samples = config.window.tokens = 0
    config.window.per_video = 0
    config.augment.size = 0
    config.augment.test_resize = "squash"
    config.augment.crop_area = (0.6, 1.0)
    config.augment.flip_probability = 0.0
    config.augment.color_jitter = 0.2
    config.backbone.checkpoint = "MCG-NJU/videomae-small-finetuned-kinetics"
    config.adapter.num_taps = 3
    config.head.width = 128
    config.head.num_levels = 0
    config.head.attention_window = (19,)
    config.loss.initial_normalizer = 50.0
    config.train.epochs = config.train.schedule_epochs = 0
    config.train.warmup_epochs = 2.0
    config.train.learning_rate = 1e-3
    config.train.ema_decay = 0.99
    config.train.ema_warmup = True
    config.train.checkpoint_every_epochs = 0
    config.train.evaluate_every_epochs = 0
    config.train.evaluate_from_epoch = 0
    config.evaluate.nms_sigma = 0.5
    config.evaluate.max_detections = 200
    return config
