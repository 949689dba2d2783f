"""A whole tiny data set with its backbone, for tests of the jobs."""

import numpy as np
import pytest

from configs import quick
from losa_jax.data import synthetic
from losa_jax.models import weight_rules, weights
from losa_jax.models.vit import VitSpec


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    """quick.py on six videos and a random backbone."""
    folder = tmp_path_factory.mktemp("data")
    synthetic.render_untrimmed_set(folder / "videos", num_training=4,
                                   num_testing=2, size=32, progress=False)
    spec = VitSpec(width=16, depth=2, heads=2, mlp_width=32, patch=16,
                   image_size=(32, 32))
    rng = np.random.default_rng(0)
    weights.save_videomae_safetensors(folder / "tiny.safetensors", spec, {
        name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape
        in weight_rules.expected_shapes(spec).items()})
    weights.convert_backbone(folder / "tiny.safetensors", folder / "tiny")
    config = quick.get_config()
    config.synthetic.folder = ""
    config.pretrain.steps = 0
    config.data.annotations = str(folder / "videos/annotations.json")
    config.data.videos = str(folder / "videos/videos")
    config.backbone.checkpoint = str(folder / "tiny")
    config.backbone.width, config.backbone.depth = spec.width, spec.depth
    config.backbone.heads = spec.heads
    config.augment.size = 32
    config.window.frames = config.window.tokens = 64
    config.head.width = 16
    config.head.num_levels = 2
    config.adapter.num_taps = 1
    config.adapter.width = 8
    config.train.epochs = config.train.schedule_epochs = 3
    config.train.evaluate_from_epoch = 1
    config.train.evaluate_every_epochs = 1
    return config
