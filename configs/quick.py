"""The quick start: rendered videos, a tiny backbone, minutes on a CPU.

    bash launch/quickstart.sh
or, without the installation,
    python -m losa_jax.main --config=configs/quick.py --workdir=runs/quick
Variants: `ablation` has more videos and cached features; `hard` has training
and testing videos that share nothing but the actions (docs/method.md).

Hardware: two CPU cores, 2 GiB. Renders untrimmed H.264 videos and trains LoSA
adapters and an ActionFormer head beside the frozen transformer that comes
with the package (configs/tiny_backbone). Result: see README; it differs a
little between processors.
"""

from ml_collections import ConfigDict

from configs import common
from losa_jax.utils import recipes

VARIANTS = ("ablation", "hard")


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", *VARIANTS):
        raise ValueError(f"configs/quick.py:{variant}: the variants are "
                         f"{', '.join(VARIANTS)}, or none")
    config = common.get_config()
    config.name = "quick"
    folder = "runs/quick_data"
    config.synthetic.folder = folder
    config.synthetic.num_training = 200
    config.synthetic.num_testing = 50
    config.data.annotations = f"{folder}/untrimmed/annotations.json"
    config.data.videos = f"{folder}/untrimmed/videos"
    # Made by examples/pretrain_tiny_backbone.py.
    config.backbone.checkpoint = recipes.find("configs/tiny_backbone")
    config.backbone.width = 96
    config.backbone.depth = 6
    config.backbone.heads = 4
    config.backbone.chunk_clips = 16
    config.window.sampling = "fps"
    config.window.sample_fps = 10.0
    config.window.samples = 256
    config.window.tokens = 128
    config.augment.size = 64
    config.augment.random_crop = False
    # Left and right distinguish these classes.
    config.augment.flip_probability = 0.0
    config.augment.color_jitter = 0.2
    config.adapter.num_taps = 3
    config.adapter.width = 32
    # Chosen among 0.5, 1, 2 and 4 on validation videos of `ablation`, one
    # seed: mAP of LoSA 85.5, 90.7, 98.9 and 98.5, of the ladder 85.8, 96.0,
    # 97.0 and 84.2 (docs/adapter_study.md).
    config.adapter.learning_rate_factor = 2.0
    config.head.width = 64
    config.head.num_levels = 5
    config.head.attention_window = (9,)
    config.loss.initial_normalizer = 50.0
    config.train.epochs = 14
    config.train.schedule_epochs = 14
    config.train.warmup_epochs = 1.0
    config.train.learning_rate = 2e-3
    config.train.ema_decay = 0.99
    config.train.ema_warmup = True
    # Once, after the last epoch.
    config.train.evaluate_from_epoch = 14
    # A save takes as long as 40 steps on a CPU.
    config.train.checkpoint_every_epochs = 7
    config.evaluate.nms_sigma = 0.5
    config.evaluate.max_detections = 200
    if variant:
        _make_larger(config, variant)
    if variant == "hard":
        # Nothing but the actions is common to training and testing videos,
        # and the backbone has seen none of these.
        config.synthetic.hard = True
        # Made by examples/pretrain_tiny_backbone.py --hard.
        config.backbone.checkpoint = recipes.find(
            "configs/hard_backbone")
    return config


def _make_larger(config: ConfigDict, name: str) -> None:
    """Uses more videos, to resolve differences of 2 mAP; caches features."""
    folder = f"runs/{name}_data"
    config.name = name
    config.synthetic.folder = folder
    config.synthetic.num_training = 800
    config.synthetic.num_validation = 200
    config.synthetic.num_testing = 400
    config.data.annotations = f"{folder}/untrimmed/annotations.json"
    config.data.videos = f"{folder}/untrimmed/videos"
    # Every patch (64 pixels are 4 x 4), which every adapter type can read.
    config.data.cache = f"{folder}/taps"
    config.data.cache_dtype = "float16"
    config.data.cache_subsets = ("training", "validation", "testing")
    # These files were rendered, so they need no check.
    config.data.check = "none"
    config.window.align_to_clips = True
    # Settings are chosen here; "testing" is scored once, by the sweep.
    config.data.test_subset = "validation"
    config.train.batch_windows = 4
    config.train.epochs = 5
    config.train.schedule_epochs = 5
    config.train.warmup_epochs = 0.5
    # Once: the best of several evaluations would be biased.
    config.train.evaluate_from_epoch = 5
