"""V-JEPA 2 and 2.1 against numbers of the public code."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import losa_jax
from losa_jax import convert
from losa_jax.distributed import sharding
from losa_jax.errors import InputError
from losa_jax.models.backbones import backbone_template
from losa_jax.models.backbones.encode_windows import encode_windows
from losa_jax.models.backbones.scan_blocks import scan_blocks
from losa_jax.models.backbones.vjepa2 import NORMED_BLOCKS, VJepa2, VJepa2Spec
from losa_jax.models.ops.params import parameters
from losa_jax.models.ops.rotary import axial_rotation, rotate
from losa_jax.weights import backbone_folder
from tests.models.backbones.contract import check_family

# Of the largest value of an array, for float32.
TOLERANCE = 2e-5
TINY = dict(width=24, depth=3, heads=2, mlp_width=40, patch=8, clip_frames=4,
            image_size=(16, 24))
TINY_21 = {**TINY, "version": "2.1", "depth": 12, "rescales_positions": True}
PROBE = dict(num_classes=5, probe_depth=2, probe_heads=3)


def _close(got, want, tolerance=TOLERANCE):
    np.testing.assert_allclose(got, want, rtol=0,
                               atol=tolerance * np.abs(want).max())


def _every_block(blocks, depth, tokens, **settings):
    return scan_blocks(blocks, tokens, None, numbers=range(depth),
                       tap_layers=tuple(range(depth)), tap=lambda x: x,
                       **settings)[1]


def _outputs(model, frames):
    """Returns the embedding and every block's output, as all tokens."""
    @jax.jit
    def run(frames):
        tokens = model.embed(frames)
        n, *grid, c = tokens.shape
        return tokens.reshape(n, -1, c), _every_block(
            model.blocks, model.spec.depth, tokens.reshape(n, -1, c),
            rotation=model.rotation(tuple(grid)))
    return run(frames)


def _check(model, data, case=""):
    """Compares what one case of a fixture has, through `features` too."""
    frames = data[f"{case}in/frames"]
    embedded, outputs = _outputs(model, frames)
    patches = embedded
    if model.spec.version == "2.1":
        patches = embedded - (model.image_vector if frames.shape[1] == 1
                              else model.video_vector)[...]
    _close(patches, data[f"{case}out/patch"])
    if f"{case}out/embed" in data:
        _close(embedded, data[f"{case}out/embed"])
    checked = [i for i in range(model.spec.depth)
               if f"{case}out/block{i}" in data]
    assert checked[-1] == model.spec.depth - 1
    for i in checked:
        _close(outputs[i], data[f"{case}out/block{i}"])
    name = next(name for name in ("out/features", "out/last_hidden_state")
                if case + name in data)
    tokens = data[case + name]
    _close(model.normed_tokens(frames)[0], tokens)
    got = jax.jit(lambda frames: model.features(
        frames, taps=tuple(checked), tap_norm=False))(frames)
    k, n, u, h, w, c = got.taps.shape
    _close(got.last, tokens.reshape(n, u, h * w, c).mean(axis=2))
    for i, tap in zip(checked, got.taps, strict=True):
        _close(tap.reshape(n, -1, c), data[f"{case}out/block{i}"])
    _close(model.mean_features(frames), tokens.mean(axis=1))


def _converted(source, output, **options):
    backbone_folder.convert_backbone(source, output, **options)
    return losa_jax.load_backbone(output)


def _from_arrays(data, folder, **options):
    path = folder / "source.safetensors"
    save_file({key.removeprefix("param/"): data[key] for key in data
               if key.startswith("param/")}, path)
    return _converted(path, folder / "out", **options)


@pytest.fixture
def parity(shared_dir):
    def read(name):
        folder = shared_dir / "data/parity"
        facts = folder / (f"{name}_config.json")
        return folder, dict(np.load(folder / f"{name}.npz")), json.loads(
            facts.read_text())
    return read


@pytest.mark.shared
@pytest.mark.parametrize("name, cases", [
    ("vjepa2_tiny_base", ("base", "wide", "odd")),
    ("vjepa21_tiny", ("base", "wide", "image"))])
def test_every_block_equals_the_public_model(parity, tmp_path, name, cases):
    _, data, facts = parity(name)
    model = _from_arrays(data, tmp_path, heads=facts["num_heads"],
                         image_size=tuple(facts["img_size"]))
    assert set(facts["cases"]) == set(cases)
    for case in cases:
        _check(model, data, f"{case}/")


@pytest.mark.shared
def test_the_four_normed_levels_equal_the_public_model(parity, tmp_path):
    _, data, facts = parity("vjepa21_tiny")
    model = _from_arrays(data, tmp_path, heads=facts["num_heads"])
    assert list(NORMED_BLOCKS[12]) == facts["hierarchical_layers"]
    for case in facts["cases"]:
        levels = model.normed_tokens(data[f"{case}/in/frames"],
                                     NORMED_BLOCKS[12])
        _close(np.concatenate(levels, axis=-1),
               data[f"{case}/out/hierarchical"])
    model.spec = dataclasses.replace(model.spec, rescales_positions=False)
    for case in ("base", "wide"):
        want = data[f"{case}/out/features_no_interpolation"]
        _close(model.normed_tokens(data[f"{case}/in/frames"])[0], want)
    # Another resolution than that of the pre-training shows the difference.
    assert np.abs(want - data["wide/out/features"]).max() > 0.1


@pytest.mark.shared
@pytest.mark.parametrize("name, entry", [
    ("vjepa2_tiny_meta", "target_encoder"),
    ("vjepa21_tiny_meta", "ema_encoder")])
def test_a_checkpoint_of_meta_equals_the_public_model(parity, tmp_path, capsys,
                                                      name, entry):
    folder, data, facts = parity(f"{name}_expected")
    assert facts["encoder_key"] == entry
    command = [str(folder / f"{name}.pt"), f"--output={tmp_path / 'out'}",
               f"--heads={facts['num_heads']}", "--verify"]
    assert convert.main(command) == 0
    shown = capsys.readouterr().out
    assert f"note: state dict under '{entry}'" in shown
    assert "not read: encoder, predictor, opt" in shown
    assert ("1 tensors of unused positions" in shown) == (
        entry == "target_encoder")
    _check(losa_jax.load_backbone(tmp_path / "out"), data)


@pytest.mark.shared
def test_an_attentive_probe_equals_the_public_model(parity, tmp_path):
    folder, data, facts = parity("vjepa2_tiny_probe_expected")
    model = _from_arrays(data, tmp_path, heads=facts["num_heads"],
                         probe=folder / "vjepa2_tiny_probe.pt",
                         probe_heads=facts["probe_num_heads"])
    spec = model.spec
    assert spec.probe_depth == 2 and spec.probe_norm_epsilon == 1e-5
    tokens = model.normed_tokens(data["in/frames"])[0]
    _close(tokens, data["out/tokens"])
    for i, got in enumerate(_every_block(model.probe.blocks, 2, tokens)):
        _close(got, data[f"out/probe_block{i}"])
    _close(model.probe.pool(tokens), data["out/pooled"])
    _close(jax.jit(model.classify)(data["in/frames"]), data["out/logits"])


@pytest.mark.shared
@pytest.mark.parametrize("name", ["hf_vjepa2_tiny", "hf_vjepa2_tiny_backbone"])
def test_a_hugging_face_folder_equals_transformers(shared_dir, tmp_path, name):
    folder = shared_dir / "data/parity" / name
    data = dict(np.load(folder / "expected.npz"))
    model = _converted(folder, tmp_path / "out")
    assert model.spec.clip_frames == 8 and model.spec.image_size == (32, 32)
    for case in ("", "short/"):
        if f"{case}in/frames" not in data:
            continue
        _check(model, data, case)
        if "out/logits" in data:
            frames = data[f"{case}in/frames"]
            tokens = model.normed_tokens(frames)[0]
            _close(model.probe.pool(tokens), data[f"{case}out/pooled"])
            _close(model.classify(frames), data[f"{case}out/logits"])


@pytest.mark.shared
def test_a_checkpoint_in_bfloat16_computes_what_its_numbers_say(shared_dir,
                                                                tmp_path):
    folder = shared_dir / "data/parity/hf_vjepa2_tiny"
    state = {name: array.astype(ml_dtypes.bfloat16) for name, array in
             load_file(folder / "model.safetensors").items()}
    clips = np.load(folder / "expected.npz")["in/frames"]
    results = []
    for title, tensors in (("half", state), ("full", {
            name: array.astype(np.float32)
            for name, array in state.items()})):
        (tmp_path / title).mkdir()
        save_file(tensors, tmp_path / title / "model.safetensors")
        (tmp_path / title / "config.json").write_text(
            (folder / "config.json").read_text())
        model = _converted(tmp_path / title, tmp_path / f"{title}_out")
        results.append(np.concatenate([
            np.ravel(model.features(clips, taps=(0, 2)).last),
            np.ravel(model.classify(clips))]))
    _, arrays, _ = backbone_folder.open_backbone(tmp_path / "half_out")
    assert {array.dtype.name for array in arrays.values()} == {"bfloat16"}
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("options", [
    TINY, {**TINY, **PROBE}, TINY_21, {**TINY_21, **PROBE,
                                       "probe_blocks": (5, 11)},
    {**TINY, **PROBE, "probe_depth": 0, "probe_blocks": (0, 2)}])
def test_vjepa2_keeps_the_contract(tmp_path, options):
    check_family(VJepa2Spec(**options), tmp_path)


@pytest.mark.parametrize("is_paired", [True, False])
@pytest.mark.parametrize("width", [3, 12, 13, 16, 20])
def test_rotations_equal_a_loop_over_the_formula(is_paired, width):
    rng = np.random.default_rng(0)
    axes = [np.arange(2.0), np.arange(3.0) * 7.5, np.arange(2.0) * 15]
    x = rng.normal(size=(2, 12, 2, width)).astype(np.float32)
    n = 2 * (width // 3 // 2)
    want = x.astype(np.float64)
    for token, positions in enumerate(
            (a, r, c) for a in axes[0] for r in axes[1] for c in axes[2]):
        for axis, p in enumerate(positions):
            for k in range(n):
                j = k // 2 if is_paired else k % (n // 2)
                angle = p * 10000 ** (-j / (n / 2))
                at = axis * n + k
                other = (-x[:, token, :, at + 1] if k % 2 == 0
                         else x[:, token, :, at - 1])
                want[:, token, :, at] = (x[:, token, :, at] * np.cos(angle)
                                         + other * np.sin(angle))
    got = rotate(jnp.asarray(x), axial_rotation(axes, width,
                                                is_paired=is_paired))
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_a_probe_reads_the_normed_tokens_of_several_blocks():
    spec = VJepa2Spec(**TINY_21, **PROBE, probe_blocks=(2, 8, 11))
    model = VJepa2(spec, rngs=nnx.Rngs(0))
    clips = np.random.default_rng(0).integers(
        0, 256, (2, 6, 16, 40, 3), np.uint8)
    levels, logits, taps = jax.jit(lambda clips: (
        model.normed_tokens(clips, (2, 8, 11)), model.classify(clips),
        model.features(clips, taps=(8,), tap_norm=False).taps))(clips)
    tokens = jnp.concatenate(list(levels), axis=1)
    np.testing.assert_allclose(logits, model.probe(tokens), atol=1e-5)
    x = np.asarray(taps[0]).reshape(2, 30, 24)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(
        x.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(levels[1], x, atol=1e-4)  # norms are fresh


@pytest.mark.parametrize("options, message", [
    ({"depth": 13, "version": "2.1"}, "VJepa2Spec.depth=13: choose one of 12, "
                                      "24, 40, 48"),
    ({"version": "3"}, "VJepa2Spec.version='3': choose one of 2, 2.1"),
    ({"rescales_positions": True}, "VJepa2Spec.rescales_positions=True"),
    ({"heads": 5}, "VJepa2Spec.width=24 does not divide by .*heads=5"),
    ({**PROBE, "probe_heads": 7}, "does not divide by .*probe_heads=7"),
    ({**TINY_21, **PROBE, "probe_blocks": (3, 11)},
     r"probe_blocks=\(3, 11\): must .* of 2, 5, 8, 11"),
    ({**PROBE, "probe_blocks": (2, 1)}, r"probe_blocks=\(2, 1\): must asc")])
def test_a_spec_checks_itself(options, message):
    with pytest.raises(InputError, match=message):
        VJepa2Spec(**{**TINY, **options})


def test_clips_that_are_too_short_or_small_are_refused():
    model = VJepa2(VJepa2Spec(**TINY), rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="clips of 1 frames are too short for "
                                         "V-JEPA 2, whose tokens are of 2"):
        model.features(np.zeros((1, 1, 16, 16, 3), np.uint8))
    with pytest.raises(InputError, match="no classifier: convert a fine-"):
        model.classify(np.zeros((1, 4, 16, 16, 3), np.uint8))
    model = VJepa2(VJepa2Spec(**TINY_21), rngs=nnx.Rngs(0))
    image = model.features(np.zeros((1, 1, 16, 16, 3), np.uint8))
    assert image.last.shape == (1, 1, 24)
    with pytest.raises(InputError, match="frames of 1 x 2 patches: .* at least "
                                         "two rows"):
        model.features(np.zeros((1, 4, 8, 16, 3), np.uint8))
    with pytest.raises(InputError, match=r"numbers=\(3,\): .* of 2, 5, 8, 11"):
        model.normed_tokens(np.zeros((1, 4, 16, 16, 3), np.uint8), (3,))


@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 3, 1)])
def test_chunks_and_devices_do_not_change_the_features(shape):
    spec = VJepa2Spec(**TINY)
    tree = parameters(VJepa2(spec, rngs=nnx.Rngs(0)))
    frames = jnp.asarray(np.random.default_rng(0).integers(
        0, 256, (2, 4 * 6, 16, 32, 3), np.uint8))
    mesh = sharding.make_mesh(shape, jax.devices()[:np.prod(shape)])
    shards, place = sharding.clip_placement(mesh, 6)

    def encode(**settings):
        return jax.jit(lambda tree: encode_windows(
            backbone_template(spec).bind(tree), frames, taps=(0, 2),
            tap_grid=(1, 2), **settings))(tree)

    for one, other in zip(
            encode(chunk_clips=3, shards=shards, clip_sharding=place),
            encode(chunk_clips=0), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
