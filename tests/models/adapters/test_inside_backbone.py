"""The backbone with gradients: AdaTAD's adapters, and training it whole."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losa_jax.errors import InputError
from losa_jax.models.adapters.inside_backbone import (
    InsideBackbone,
    InsideBackboneSpec,
    split_backbone,
)
from losa_jax.models.backbones.videomae import VideoMaeSpec
from losa_jax.models.ops.params import nest
from losa_jax.weights import videomae
from losa_jax.weights.name_table import expected_shapes
from tests.models.adapters.test_ladder import _NAMES
from tests.models.backbones.test_videomae import (
    TOLERANCE,
    _Array,
    _load,
    _model,
    _pixels,
)

SPEC = VideoMaeSpec(width=16, depth=4, heads=2, mlp_width=32, patch=8,
                    clip_frames=4, image_size=(16, 16), final_norm="none")


def _flat(spec=SPEC):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape, scale=0.2).astype(np.float32)
            for name, shape in expected_shapes(spec).items()}


def _encode(spec, inside, flat, frames, valid, trained=None, key=None,
            chunk_clips=2):
    frozen, own = split_backbone(flat, spec, inside)
    backbone = InsideBackbone(spec, inside)
    if trained is None:
        trained = (backbone.fresh_adapters(0) if inside.kind == "tia"
                   else nest(own))
    return jax.jit(lambda *inputs: backbone(
        *inputs, chunk_clips=chunk_clips, dtype=jnp.float32).last)(
            nest(frozen), trained, frames, valid, key)


def _frames(spec=SPEC, clips=3):
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.integers(
        0, 256, (2, clips * spec.clip_frames, 16, 16, 3), np.uint8))


VALID = np.ones((2, 3, 2), bool)


@pytest.mark.parametrize("kind", ["tia", "full"])
@pytest.mark.parametrize("top", [1, 3, 4])
def test_without_training_it_equals_the_frozen_backbone(kind, top):
    flat = _flat()
    model = _model(SPEC, flat)
    frames = _frames()
    want = model.features(frames.reshape(6, 4, 16, 16, 3)).last
    inside = InsideBackboneSpec(kind, top, width=4)
    got = _encode(SPEC, inside, flat, frames, VALID)
    np.testing.assert_allclose(got.reshape(6, 2, 16), want, atol=1e-5)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["adapter_tiny", "adapter_posresize_tiny"])
def test_adapters_equal_opentad_with_their_gradients(shared_dir, name):
    folder = shared_dir / "data/parity"
    data = np.load(folder / f"adatad_{name}.npz")
    facts = json.loads((folder / f"adatad_{name}_config.json").read_text())
    layers = facts["adapter_index"]
    tensors = {}
    for key in data:
        if not key.startswith("param/") or "adapter." in key:
            continue
        title = key.removeprefix("param/")
        for pattern, ours in videomae.OPENTAD_NAMES:
            title = re.sub(f"^{pattern}$", ours, title)
        tensors[title] = _Array(data[key])
    size = (facts["img_size"],) * 2
    spec, flat = _load(
        {k: v for k, v in tensors.items() if not k.startswith("fc_norm")},
        heads=facts["num_heads"], clip_frames=facts["num_frames"],
        image_size=size)
    depth = facts["depth"]
    top = depth - layers[0]
    inside = InsideBackboneSpec("tia", top, width=12)

    def stacked(prefix):
        """By our names; blocks without an adapter get one that is zero."""
        return {ours: np.stack([_own(data, prefix, i, theirs, axes, layers)
                                for i in range(depth - top, depth)])
                for theirs, (ours, axes) in _NAMES.items()}

    trained = {"adapters": nest({
        f"stack/{ours}": jnp.asarray(array)
        for ours, array in stacked("param/").items()})}
    videos, clips = facts["n_videos"], facts["clips_per_video"]
    frames = _pixels(data["in/x"])
    frames = jnp.asarray(frames.reshape(
        videos, -1, *frames.shape[2:]), jnp.float32)
    valid = jnp.ones((videos, clips, spec.clip_tokens), bool)

    def loss(trained):
        last = _encode(spec, inside, flat, frames, valid, trained)
        out = last.reshape(videos, -1, spec.width)
        resized = jax.image.resize(
            out, (videos, facts["total_frames"], spec.width), "linear")
        return jnp.square(resized).mean(), out

    (value, out), gradients = jax.jit(
        jax.value_and_grad(loss, has_aux=True))(trained)
    want = data["out/pooled"].transpose(0, 2, 1)
    np.testing.assert_allclose(out, want, rtol=0,
                               atol=TOLERANCE * max(1, np.abs(want).max()))
    assert float(value) == pytest.approx(float(data["loss/mean_square"]),
                                         rel=1e-5)
    for ours, theirs in stacked("grad/").items():
        got = gradients["adapters"]["stack"]
        for part in ours.split("/"):
            got = got[part]
        kept = [i - (depth - top) for i in layers]
        np.testing.assert_allclose(
            got[np.array(kept)], theirs[kept], rtol=0,
            atol=2e-4 * np.abs(theirs).max(), err_msg=ours)


def _own(data, prefix, block, theirs, axes, layers):
    source = f"{prefix}blocks.{{}}.adapter.{theirs}"
    array = data[source.format(block if block in layers else layers[0])]
    array = array.transpose(axes)
    array = array.reshape(array.shape[:2] if array.ndim == 3 else array.shape)
    # gamma 0 switches an adapter off.
    return array if block in layers else array * (theirs != "gamma")


def test_full_moves_the_top_blocks_only():
    flat = _flat()
    inside = InsideBackboneSpec("full", 2)
    frozen, own = split_backbone(flat, SPEC, inside)
    assert {name.split("/")[0] for name in own} == {"upper"}
    assert {name.split("/")[0] for name in frozen} == {
        "lower", "patch_embed"}
    assert own["upper/attn/q_bias"].shape == (2, 16)
    gradient = jax.grad(lambda trained: _encode(
        SPEC, inside, flat, _frames(), VALID, trained).sum())(nest(own))
    norms = jax.tree.map(lambda leaf: float(jnp.abs(leaf).max()), gradient)
    assert min(jax.tree.leaves(norms)) > 0
    whole = split_backbone(flat, SPEC, InsideBackboneSpec("full", 4))[1]
    assert "patch_embed/kernel" in whole


def test_rematerialization_changes_memory_but_not_numbers():
    flat = _flat()
    results, sizes = [], []
    for stores in (False, True):
        inside = InsideBackboneSpec("full", 4, drop_path=0.2,
                          remat_blocks=not stores)
        own = nest(split_backbone(flat, SPEC, inside)[1])
        compiled = jax.jit(jax.grad(lambda trained, inside=inside: jnp.square(
            _encode(SPEC, inside, flat, _frames(clips=3), VALID, trained,
                    jax.random.key(0))).sum())).lower(own).compile()
        results.append(compiled(own))
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    for one, two in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)
    assert sizes[0] < sizes[1]


def test_drop_path_drops_whole_clips_in_training_only():
    flat = _flat()
    inside = InsideBackboneSpec("full", 4, drop_path=0.9)
    frames = _frames()
    plain = _encode(SPEC, inside, flat, frames, VALID)
    one, two = (_encode(SPEC, inside, flat, frames, VALID,
                        key=jax.random.key(seed)) for seed in (0, 1))
    assert not np.allclose(one, plain) and not np.allclose(one, two)
    np.testing.assert_array_equal(
        plain, _encode(SPEC, inside, flat, frames, VALID))


def test_padding_does_not_reach_valid_tokens():
    flat = _flat()
    inside = InsideBackboneSpec("tia", 2, width=4)
    trained = InsideBackbone(SPEC, inside).fresh_adapters(0)
    up = trained["adapters"]["stack"]["up"]
    up["kernel"] = jnp.ones_like(up["kernel"])
    valid = VALID.copy()
    valid[:, 2] = False
    frames = _frames()
    first = _encode(SPEC, inside, flat, frames, valid, trained)
    other = _encode(SPEC, inside, flat, frames.at[:, 8:].set(255), valid,
                    trained)
    np.testing.assert_allclose(first[:, :2], other[:, :2], atol=1e-6)
    assert not np.allclose(first[:, 2], other[:, 2])


@pytest.mark.parametrize("wrong, message", [
    ({"kind": "tai"}, "InsideBackboneSpec.kind='tai': choose one of tia, full"),
    ({"top_blocks": 0}, "InsideBackboneSpec.top_blocks=0"),
    ({"width": 0}, "InsideBackboneSpec.width=0: must be at least 1"),
    ({"kind": "full", "width": -1}, "InsideBackboneSpec.width=-1"),
    ({"kernel": 4}, "InsideBackboneSpec.kernel=4: must be an odd number"),
    ({"drop_path": 1.0}, "InsideBackboneSpec.drop_path=1.0: .* below 1"),
    ({"drop_path": float("nan")}, "InsideBackboneSpec.drop_path=nan"),
    ({"remat_blocks": "no"}, "InsideBackboneSpec.remat_blocks='no'")])
def test_invalid_specs_raise_an_error_that_names_the_field(wrong, message):
    with pytest.raises(InputError, match=message):
        InsideBackboneSpec(**{"kind": "tia", "top_blocks": 2, "width": 4,
                              **wrong})
