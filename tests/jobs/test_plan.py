"""Planning for chips that are not there, and against a real run."""

import dataclasses
import importlib.util
import json
import types

import jax
import numpy as np
import pytest

from configs import thumos
from losa_jax.distributed import sharding
from losa_jax.errors import InputError
from losa_jax.jobs import plan_sweep
from losa_jax.jobs.plan import (
    DEFAULT_CLASSES,
    Plan,
    format_plan,
    make_plan,
    plan,
)
from losa_jax.jobs.plan_sweep import meshes, sweep_plans
from losa_jax.planning.abstract_steps import trace_steps
from losa_jax.planning.cost import matmul_flops
from losa_jax.planning.estimate import Need
from losa_jax.planning.topology import CHIPS, describe_devices, parse_topology
from losa_jax.training import build
from losa_jax.training.restore import fresh_state


def test_topologies():
    assert parse_topology("v5e:4x8") == ("v5e", (4, 8))
    for text in ("v5e", "v9:2x2", "v5e:4-8", "cpu:"):
        with pytest.raises(InputError, match="v5e:4x8 or v5p:2x2x2"):
            parse_topology(text)
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


@pytest.fixture(scope="module")
def config(config):
    """Which says all of the backbone: a plan reads no checkpoint."""
    config = config.copy_and_resolve_references()
    config.backbone.mlp_width = 32
    return config


@pytest.fixture(scope="module")
def planned(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    return plan(config, "cpu:4", output=path), path


@pytest.mark.slow
def test_a_plan_for_these_processors(config, planned):
    found, path = planned
    assert found.mesh == {"data": 2, "clip": 1, "fsdp": 2} and found.fits
    said = format_plan(config, found)
    assert "train step, 2 windows, a chip" in said
    assert "evaluation step, 2 windows, a chip" in said
    stored = json.loads(path.read_text())
    assert stored["train"]["temporary_bytes"] == found.train.temporary_bytes
    assert stored["chip_memory_bytes"] is None  # no limit is told
    # No pixels cross between devices.
    frames = 2 * config.window.samples * 32 * 32 * 3 // 4
    for need in (found.train, found.evaluate):
        assert all(one.largest_bytes < frames
                   for one in need.collectives.values())
    small = dataclasses.replace(found, fits=False)
    assert "does NOT fit: try --config.backbone.dtype=bfloat16; a smaller" in (
        format_plan(config, small))


@pytest.mark.slow
def test_a_run_is_what_was_planned(config, planned):
    """Its memory to the byte; donated; compiled once for all steps."""
    mesh = sharding.make_mesh((2, 1, 2), jax.devices()[:4])
    model = build.build_model(config, DEFAULT_CLASSES, mesh)
    state, optimizer = fresh_state(config, model, mesh, 100)
    step = build.jit_train_step(config, model, optimizer, state, mesh)
    frames, size = config.window.samples, config.augment.size
    batch = {
        "frames": np.zeros((2, frames, size, size, 3), np.uint8),
        "valid_samples": np.full(2, frames, np.int32),
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
    found, _ = planned
    assert memory.temp_size_in_bytes == found.train.temporary_bytes > 0
    assert memory.argument_size_in_bytes == found.train.argument_bytes


def test_flops_of_a_step_by_hand():
    """ViT-S and its adapters at three windows' clips, a head of no weight."""
    config = thumos.get_config("s")
    config.window.samples = config.window.tokens = 64
    config.head.width, config.head.num_levels = 8, 2
    config.head.num_stem_blocks = 1
    mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    steps = trace_steps(config, 3, mesh)
    tokens, c, clips = 8 * 10 * 10, 384, 2 * 4
    block = 2 * tokens * c * (3 * c + c + 8 * c) + 4 * tokens ** 2 * c
    embed = 2 * tokens * c * (2 * 16 * 16 * 3)
    backbone = clips * (12 * block + embed)
    # The adapters' two maps from c to 64 at 4 x 4 cells, and what follows at
    # one cell; with gradients three times as much, the taps' own not needed.
    cells, d = clips * 8 * 16, 64
    adapters = 6 * 2 * 2 * (2 * cells * c * d)
    want = backbone + adapters
    assert abs(matmul_flops(steps.train.jaxpr) - want) < 0.03 * want


def test_meshes_leave_no_device_with_work_twice(config):
    # Two windows of four clips on eight devices.
    assert meshes(config, 8) == [(2, 1, 4), (2, 4, 1), (2, 2, 2)]
    assert meshes(config, 16) == [(2, 4, 2)]


@pytest.mark.slow
def test_a_sweep_recommends_a_mesh(config, capsys):
    config = config.copy_and_resolve_references()
    config.train.batch_windows = 1
    config.evaluate.batch_windows = 1
    # One device has four clips in flight either way: one program.
    found = sweep_plans(config, "cpu:1", chunks=(4, 0), batches=(1,))
    assert [one.mesh for _, one in found] == [
        {"data": 1, "clip": 1, "fsdp": 1}]
    assert "recommended: --config.mesh.data=1" in capsys.readouterr().out


@pytest.fixture
def pretended(monkeypatch):
    """A sweep whose programs fit below `room` clips at once, in no time."""
    told = types.SimpleNamespace(room=100, tried=[], seconds=0.0)
    monkeypatch.setattr(plan_sweep, "time", types.SimpleNamespace(
        monotonic=lambda: told.seconds))
    monkeypatch.setattr(plan_sweep, "describe_devices",
                        lambda _: (CHIPS["v5e"], [None] * 4))

    def make_plan(config, topology, *_, **__):
        mesh = {axis: config.mesh[axis] for axis in sharding.AXES}
        chunk, remat = (config.backbone.chunk_clips,
                        config.adapter.remat_blocks)
        told.tried.append((tuple(mesh.values()), chunk, remat))
        told.seconds += 60
        # Gathering costs a little.
        seconds = 1.0 + 0.1 * (mesh["fsdp"] - 1)
        need = Need(chunk < told.room, 1.0, 1.0, 1, 1, 2,
                    best_seconds=seconds, cautious_seconds=seconds)
        return Plan(topology, mesh, 2.0, need.fits, need, None)

    monkeypatch.setattr(plan_sweep, "make_plan", make_plan)
    return told


def test_a_sweep_leaves_out_what_only_saves_memory(config, pretended, capsys):
    found = sweep_plans(config, "v5e:2x2", batches=(1,))
    # Two windows of four clips on four chips; quickest first, all fit.
    assert [mesh for mesh, *_ in pretended.tried] == [
        (2, 1, 2), (2, 2, 1), (1, 1, 4), (1, 4, 1), (1, 2, 2)]
    assert all(chunk == 2 for _, chunk, _ in pretended.tried)
    assert found[0][1].mesh == {"data": 2, "clip": 2, "fsdp": 1}
    assert ("5 of 10 choices compiled in 5.0 min; 5 would only save memory"
            in capsys.readouterr().out)

    pretended.room, pretended.tried = 2, []
    found = sweep_plans(config, "v5e:2x2", batches=(1,))
    assert len(found) == 10 and found[0][0].backbone.chunk_clips == 1


def test_a_sweep_ends_in_time(config, pretended, capsys):
    config = config.copy_and_resolve_references()
    config.adapter.kind = "full"
    pretended.room = 0  # nothing fits
    found = sweep_plans(config, "v5e:2x2", batches=(1,), max_minutes=2.5)
    assert [(chunk, remat) for _, chunk, remat in pretended.tried] == [
        (2, False), (2, True), (1, True)]
    assert not any(one.fits for _, one in found)
    said = capsys.readouterr().out
    assert "3 of 15 choices compiled in 3.0 min; 0 would only" in said
    assert "12 not tried for lack of time" in said and "nothing fits" in said


@pytest.mark.libtpu
@pytest.mark.slow
def test_a_tpu_that_is_not_there(config):
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed (extra `tpu`)")
    chip, devices = describe_devices("v5e:2x2")
    assert chip is CHIPS["v5e"] and len(devices) == 4
    found = make_plan(config, "v5e:2x2", chip, devices,
                      with_evaluation=False)
    need = found.train
    assert found.fits and need.peak_bytes < 2**30
    assert 0 < need.best_seconds < need.cautious_seconds
    assert need.memory_traffic > 0
