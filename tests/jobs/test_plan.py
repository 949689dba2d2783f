"""Plans for described chips, and for a real run."""

import dataclasses
import importlib.util
import json
import re

import jax
import numpy as np
import pytest

from configs import thumos
from losa_jax.distributed import sharding
from losa_jax.errors import InputError
from losa_jax.jobs.plan import DEFAULT_CLASSES, format_plan, plan
from losa_jax.planning.estimate import matmul_flops, trace_steps
from losa_jax.planning.topology import CHIPS, describe_devices
from losa_jax.training import build
from losa_jax.training.restore import fresh_state
from tests.custom_recipe import custom_config


def test_topologies():
    for text in ("v5e", "v9:2x2", "v5e:4-8", "cpu:"):
        with pytest.raises(InputError, match="v5e:4x8 or v5p:2x2x2"):
            describe_devices(text)
    with pytest.raises(InputError, match="this process has 8 CPU devices"):
        describe_devices("cpu:64")
    with pytest.raises(InputError, match="h100:GPUS of one host"):
        describe_devices("h100:2x2x2")


def test_gpus_need_their_plugin():
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        with pytest.raises(InputError, match=r"losa_jax\[cuda12\]"):
            describe_devices("h100:8")
    else:
        assert len(describe_devices("h100:2x4")[1]) == 8


@pytest.mark.parametrize("keys, message", [
    ({}, "config.backbone.name=NAME (one of vit_s, vit_b, vit_l, vit_h, "
     "vit_g, .*), or, for another size, also --config.backbone.width=N "
     "--config.backbone.depth=N --config.backbone.heads=N"),
    ({"backbone.width": 8, "backbone.depth": 2}, "--config.backbone.name=NAME "
     "(one of .*), or, for another size, also --config.backbone.heads=N"),
    ({"backbone.name": "vit_s", "train.batch_windows": 0},
     "config.train.batch_windows=0: must be at least 1"),
    ({"backbone.name": "vit_x"}, "choose one of vit_s, ")])
def test_a_plan_names_the_keys_that_it_needs(keys, message, tmp_path):
    config = custom_config()
    config.update_from_flattened_dict(keys)
    with pytest.raises(InputError, match=re.escape(message).replace(
            r"\.\*", ".*")):
        plan(config, "cpu:1", workdir=tmp_path)


@pytest.fixture(scope="module")
def config(config):
    """Gives all sizes of the backbone, since a plan reads no checkpoint."""
    config = config.copy_and_resolve_references()
    config.backbone.mlp_width = 32
    return config


@pytest.fixture(scope="module")
def planned(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    return plan(config, "cpu:4", workdir=path.parent, output=path), path


@pytest.mark.slow
def test_a_plan_for_these_processors(config, planned):
    result, path = planned
    assert result.mesh == {"data": 2, "clip": 1, "fsdp": 2} and result.fits
    text = format_plan(config, result)
    assert "train step, 2 windows (compiled in" in text
    assert "evaluation step, 2 windows (compiled in" in text
    assert "TFLOP a step" in text and "best case" not in text
    stored = json.loads(path.read_text())
    assert stored["train"]["temporary_bytes"] == result.train.temporary_bytes
    assert stored["chip_memory_bytes"] is None
    small = dataclasses.replace(result, fits=False)
    assert "does NOT fit: try --config.backbone.dtype=bfloat16; a smaller" in (
        format_plan(config, small))
    refused = dataclasses.replace(
        result.train, peak_bytes=None, message="Used 24.38G of 15.75G\nlist")
    assert "ran out of memory:\n    Used 24.38G of 15.75G\n    list" in (
        format_plan(config, dataclasses.replace(small, train=refused)))


@pytest.mark.slow
def test_a_run_needs_the_planned_memory(config, planned):
    """Its memory to the byte. The state is donated; one compilation."""
    mesh = sharding.make_mesh((2, 1, 2), jax.devices()[:4])
    model = build.build_model(config, DEFAULT_CLASSES, mesh)
    state, optimizer = fresh_state(config, model, mesh, 100)
    step = build.jit_train_step(config, model, optimizer, state, mesh)
    frames, size = config.window.samples, config.augment.size
    batch = {
        "frames": np.zeros((2, frames, size, size, 3), np.uint8),
        "valid_samples": np.full(2, frames, np.int32),
        "readable": np.ones((2, 2), bool),
        "segments": np.tile(np.float32([3, 9]), (2, 64, 1)),
        "labels": np.zeros((2, 64), np.int32),
        "action_valid": np.ones((2, 64), bool)}
    batch = sharding.put(batch, sharding.batch_shardings(batch, mesh))
    key = jax.random.key(0)
    second, _ = step(state, model.frozen, batch, key)
    third, metrics = step(second, model.frozen, batch, key)
    assert step._cache_size() == 1
    assert np.isfinite(float(metrics["loss"])) and int(third.step) == 2
    # The new state lies where the old one was.
    for old in (state, second):
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(
        (model.frozen, batch, third)))
    # No second compilation: what was compiled above is taken.
    memory = step.lower(third, model.frozen, batch, key).compile(
        ).memory_analysis()
    result, _ = planned
    assert memory.temp_size_in_bytes == result.train.temporary_bytes > 0
    assert memory.argument_size_in_bytes == result.train.argument_bytes


@pytest.mark.parametrize("overlap", [0, 12])
def test_flops_of_a_step_by_hand(overlap):
    """ViT-S and its adapters at three windows' clips, a head of no weight."""
    config = thumos.get_config("s")
    config.window.samples = config.window.tokens = 64
    config.window.clip_overlap = overlap
    config.head.width, config.head.num_levels = 8, 2
    config.head.num_stem_blocks = 1
    mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    steps = trace_steps(config, 3, mesh)
    tokens, c, clips = 8 * 10 * 10, 384, 2 * 4
    block = 2 * tokens * c * (3 * c + c + 8 * c) + 4 * tokens ** 2 * c
    embed = 2 * tokens * c * (2 * 16 * 16 * 3)
    backbone = 16 // (16 - overlap) * clips * (12 * block + embed)
    # The adapters' two maps from c to 64 at 4 x 4 cells, and what follows at
    # one cell; with gradients three times as much, the taps' own not needed.
    cells, d = clips * 8 * 16, 64
    adapters = 6 * 2 * 2 * (2 * cells * c * d)
    want = backbone + adapters
    assert abs(matmul_flops(steps.train.jaxpr) - want) < 0.03 * want


@pytest.mark.libtpu
@pytest.mark.slow
def test_a_plan_for_a_tpu_without_the_tpu(config, tmp_path):
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed (extra `tpu`)")
    result = plan(config, "v5e:2x2", workdir=tmp_path)
    assert result.fits and sum(result.mesh.values()) == 5
    assert result.chip_memory_bytes == CHIPS["v5e"].memory_bytes
    for need in (result.train, result.evaluate):
        assert need.peak_bytes < 2**30
        assert need.best_seconds == need.chip_flops / CHIPS["v5e"].flops
        assert need.chip_flops == need.total_flops / 4
        assert 0 < need.attention_flops < need.total_flops
