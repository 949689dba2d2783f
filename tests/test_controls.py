"""The controls of configs/controls.txt are what their names say."""

from pathlib import Path

import jax
import pytest
from flax import nnx

from benchmarks.adapter_speed import configured
from configs import quick
from losa_jax.errors import InputError
from losa_jax.jobs.sweep import read_variants
from losa_jax.models.adapters import ADAPTERS
from losa_jax.models.ops.params import Template
from losa_jax.training import specs
from losa_jax.weights.backbone_folder import open_backbone

CONFIGS = Path(__file__).parent.parent / "configs"
VARIANTS = {name: {variant.name: variant for variant
                   in read_variants(CONFIGS / f"{name}.txt")}
            for name in ("controls", "controls_rates")}


def _adapter(name, file="controls"):
    """Returns a variant's tapped blocks, spec and number of parameters."""
    config = configured(VARIANTS[file][name])
    backbone, *_ = open_backbone(config.backbone.checkpoint)
    taps = specs.choose_tap_layers(config.adapter, backbone.depth)
    spec = specs.make_adapter_spec(config, backbone, taps)
    specs.check_deep_supervision(config, len(taps))
    shapes = {} if spec is None else Template(
        lambda: ADAPTERS[config.adapter.kind].module(
            spec, rngs=nnx.Rngs(0))).shapes
    return taps, spec, sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("file", VARIANTS)
def test_every_variant_can_be_built(file):
    made = {name: _adapter(name, file) for name in VARIANTS[file]}
    assert all((spec is None) == name.startswith("none")
               for name, (_, spec, _) in made.items())


def test_the_wide_ladder_has_as_many_parameters_as_losa():
    losa, ladder = (_adapter(name)[2] for name in (
        "losa", "ladder, parameters of losa"))
    assert ladder == pytest.approx(losa, rel=0.03)


def test_the_last_block_three_times_is_losa_without_intermediate_layers():
    (taps, spec, count), control = _adapter("losa"), _adapter(
        "losa, last block three times")
    assert (taps, control[0]) == ((3, 4, 5), (5, 5, 5))
    assert control[1:] == (spec, count)


def test_the_published_ladder_is_a_quarter_as_wide_as_the_backbone():
    assert _adapter("ladder, published width")[1].width == 96 // 4


def test_the_ladder_can_read_what_losa_reads():
    ours, theirs, usual = (
        configured(VARIANTS["controls"][name]) for name in (
            "losa", "ladder, input of losa", "ladder"))
    assert [specs.reads_raw_taps(one) for one in (ours, theirs, usual)] == [
        False, False, True]


def test_without_cross_attention_there_are_fewer_parameters():
    names = ("losa, no cross-attention", "losa")
    few, all_of_them = (_adapter(name)[2] for name in names)
    assert 0.6 * all_of_them < few < 0.9 * all_of_them


def test_every_type_has_the_same_grid_of_rates():
    grids = {}
    for name in VARIANTS["controls_rates"]:
        kind, _, factor = name.rpartition(" x ")
        grids.setdefault(kind, []).append(float(factor))
    assert set(map(tuple, grids.values())) == {(0.5, 1, 2, 4)}
    assert set(grids) <= set(VARIANTS["controls"])
    for name, variant in VARIANTS["controls_rates"].items():
        config, kind = configured(variant), name.rpartition(" x ")[0]
        rate = config.train.learning_rate * (
            1 if kind == "none" else config.adapter.learning_rate_factor)
        assert rate == 0.002 * float(name.rpartition(" x ")[2])


@pytest.mark.parametrize("kind, taps, weight", [
    ("none", 3, 0.5), ("tia", 3, 0.5), ("losa", 1, 0.5)])
def test_deep_supervision_needs_two_taps(kind, taps, weight):
    config = quick.get_config()
    config.adapter.kind, config.loss.deep_supervision = kind, weight
    with pytest.raises(InputError, match=r"config.loss.deep_supervision=0.5 "
                       f".*losa or ladder.*{kind} with {taps}"):
        specs.check_deep_supervision(config, taps)
    config.loss.deep_supervision = 0.0
    specs.check_deep_supervision(config, taps)
