"""A tiny data set with its backbone, for tests of the jobs."""

import jax
import numpy as np
import pytest

from configs import quick
from losa_jax.data.annotations.load import load_annotations
from losa_jax.data.synthetic import data_set
from losa_jax.distributed import sharding
from losa_jax.models.backbones.videomae import VideoMaeSpec
from losa_jax.training import build
from losa_jax.training.checkpoint import Checkpoints
from losa_jax.training.restore import fresh_state, run_facts
from losa_jax.weights import backbone_folder
from losa_jax.weights.name_table import expected_shapes


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    """Returns quick.py with six videos and a random backbone."""
    folder = tmp_path_factory.mktemp("data")
    data_set.render_untrimmed_set(folder / "videos", num_training=4,
                                   num_testing=2, size=32)
    spec = VideoMaeSpec(width=16, depth=2, heads=2, mlp_width=32, patch=16,
                        image_size=(32, 32))
    rng = np.random.default_rng(0)
    backbone_folder.save_source(folder / "tiny.safetensors", spec, {
        name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape
        in expected_shapes(spec).items()})
    backbone_folder.convert_backbone(folder / "tiny.safetensors",
                                     folder / "tiny")
    config = quick.get_config()
    config.synthetic.folder = ""
    config.data.annotations = str(folder / "videos/annotations.json")
    config.data.videos = str(folder / "videos/videos")
    config.backbone.checkpoint = str(folder / "tiny")
    config.backbone.width, config.backbone.depth = spec.width, spec.depth
    config.backbone.heads = spec.heads
    config.augment.size = 32
    config.window.samples = config.window.tokens = 64
    config.head.width = 16
    # Small programs: these tests compile more than they compute.
    config.head.num_levels = 2
    config.head.num_stem_blocks = config.head.num_embedding_convs = 1
    config.head.head_layers = 1
    config.adapter.num_taps = 1
    config.adapter.tap_grid = (2, 2)
    config.adapter.width = 8
    config.train.epochs = config.train.schedule_epochs = 3
    config.train.checkpoint_every_epochs = 2
    config.train.evaluate_from_epoch = 1
    config.train.evaluate_every_epochs = 1
    return config


@pytest.fixture(scope="session")
def fake_run(config, tmp_path_factory):
    """Returns the work directory of a run with random parameters."""
    workdir = tmp_path_factory.mktemp("run")
    mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    annotations = load_annotations(config.data.annotations)
    names = annotations.class_names
    model = build.build_model(config, len(names), mesh)
    state, _ = fresh_state(config, model, mesh, steps_per_epoch=1)
    rng = np.random.default_rng(1)

    def shaken(leaf):
        return np.asarray(leaf) + rng.normal(0, 0.2, leaf.shape).astype(
            leaf.dtype)

    places = sharding.of_leaves(state)
    state = state.replace(
        step=np.int32(7), ema=jax.tree.map(shaken, state.ema),
        statistics=jax.tree.map(
            lambda leaf: np.abs(shaken(leaf)) + np.float32(0.1),
            state.statistics))
    checkpoints = Checkpoints(workdir)
    checkpoints.save(7, sharding.put(state, places),
                     run_facts(config, names, model))
    checkpoints.set_evaluated(7, 0.5)
    checkpoints.close()
    return workdir
