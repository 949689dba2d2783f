"""Planning for chips that are not there."""

import dataclasses
import importlib.util
import json

import pytest

from losa_jax.errors import InputError
from losa_jax.jobs.plan import (
    format_plan,
    make_plan,
    plan,
    sweep_plans,
)
from losa_jax.training.topology import (
    CHIPS,
    describe_devices,
    parse_topology,
)


def test_topologies():
    assert parse_topology("v5e:4x8") == ("v5e", (4, 8))
    for text in ("v5e", "v9:2x2", "v5e:4-8", "cpu:"):
        with pytest.raises(InputError, match="v5e:4x8 or v5p:2x2x2"):
            parse_topology(text)
    with pytest.raises(InputError, match="this process has 8 CPU devices"):
        describe_devices("cpu:64")


@pytest.mark.slow
def test_a_plan_for_these_processors(config, tmp_path, capsys):
    found = plan(config, "cpu:4", output=tmp_path / "plan.json")
    assert found.mesh == {"data": 2, "clip": 2, "fsdp": 1} and found.fits
    said = capsys.readouterr().out
    assert "train step, a chip: arguments" in said and "fits" in said
    stored = json.loads((tmp_path / "plan.json").read_text())
    assert stored["train"]["temporary_bytes"] == found.train.temporary_bytes
    # No pixels cross between devices.
    frames = 2 * config.window.frames * 32 * 32 * 3 // 4
    assert all(largest < frames for _, _, largest
               in found.train.collectives.values())
    small = dataclasses.replace(found, fits=False)
    assert "does NOT fit: try a smaller --config.backbone.chunk_clips" in (
        format_plan(config, small))


@pytest.mark.slow
def test_a_sweep_recommends_a_mesh(config, capsys):
    config = config.copy_and_resolve_references()
    config.train.batch_windows = 1
    config.evaluate.batch_windows = 1
    plans = sweep_plans(config, "cpu:1", chunks=(4,))
    assert [one.mesh for one in plans] == [{"data": 1, "clip": 1, "fsdp": 1}]
    assert "recommended: --config.mesh.data=1" in capsys.readouterr().out


@pytest.mark.libtpu
@pytest.mark.slow
def test_a_tpu_that_is_not_there(config):
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed (extra `tpu`)")
    chip, devices = describe_devices("v5e:2x2")
    assert chip is CHIPS["v5e"] and len(devices) == 4
    found = make_plan(config, "v5e:2x2", chip, devices)
    assert found.fits and found.train.peak_bytes < 2**30
