"""The video transformer against public numbers and plain loops."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from losa_jax.errors import InputError
from losa_jax.models.backbones.blocks import PatchEmbed
from losa_jax.models.backbones.videomae import VideoMae, VideoMaeSpec
from losa_jax.models.ops.params import Template, nest
from losa_jax.models.ops.positions import bicubic_matrix, sincos_table
from losa_jax.models.ops.resample import pool_grid
from losa_jax.weights import backbone_folder, videomae
from losa_jax.weights.name_table import expected_shapes

# Stated for values of order 1; the fixtures' largest are 2 to 8.
TOLERANCE = 2e-5


class _Array:
    """An array as a checkpoint's tensor."""

    def __init__(self, array):
        self.shape, self.dtype, self._array = array.shape, array.dtype, array

    def read(self):
        return self._array


def _load(tensors, **options):
    spec = videomae.infer_spec(tensors, **options)
    return spec, {
        rule.parameter: np.stack([rule.layout.to_flax(
            tensors[rule.source.format(i=i)].read(), spec)
            for i in range(spec.depth)])
        if "{i}" in rule.source else
        rule.layout.to_flax(tensors[rule.source].read(), spec)
        for rule in videomae.RULES
        if rule.parameter in expected_shapes(spec)}


def _model(spec, flat):
    template = Template(lambda: VideoMae(spec, rngs=nnx.Rngs(0)))
    return template.bind(nest({k: jnp.asarray(v) for k, v in flat.items()}))


def _block_outputs(model, clips):
    x = model.embed(clips)
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    return model.run_blocks(x, tuple(range(model.spec.depth)))[1]


def _pooled(model, tokens):
    """The classifier's input, of the first token with `norm`."""
    if model.spec.final_norm == "norm":
        return model.norm(tokens)[:, 0]
    mean = tokens.mean(axis=1)
    return (model.fc_norm(mean) if model.spec.final_norm == "fc_norm"
            else mean)


def _close(got, want):
    scale = max(1.0, np.abs(want).max())
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE * scale)


def _pixels(clips):
    """The fixtures' inputs are normalized; ours are 0..255."""
    from losa_jax.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD
    clips = np.moveaxis(clips, 1, -1)
    return clips * np.array(IMAGENET_STD) + np.array(IMAGENET_MEAN)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["plain", "layerscale_nomean", "cos_attn"])
def test_every_block_equals_the_public_model(shared_dir, name):
    folder = shared_dir / "data/parity"
    data = np.load(folder / f"videomaev2_tiny_{name}.npz")
    facts = json.loads(
        (folder / f"videomaev2_tiny_{name}_config.json").read_text())
    tensors = {key.removeprefix("param/"): _Array(data[key])
               for key in data if key.startswith("param/")}
    spec, flat = _load(
        tensors, heads=facts["num_heads"], clip_frames=facts["all_frames"],
        image_size=(facts["img_size"],) * 2)
    model = _model(spec, flat)
    clips = jnp.asarray(_pixels(data["in/x"]), jnp.float32)
    embedded = model.embed(clips)
    tokens = embedded.reshape(embedded.shape[0], -1, spec.width)
    _close(tokens, data["out/patch"] + data["pos_embed"])
    blocks = jax.jit(lambda clips: _block_outputs(model, clips))(clips)
    for i in range(spec.depth):
        _close(blocks[i], data[f"out/block{i}"])
    pooled = _pooled(model, blocks[-1])
    _close(pooled, data["out/features"])
    _close(model.classifier(pooled), data["out/logits"])


@pytest.mark.shared
def test_a_whole_checkpoint_file_equals_the_public_model(shared_dir,
                                                         tmp_path):
    folder = shared_dir / "data/parity"
    backbone_folder.convert_backbone(folder / "videomaev2_ckpt_module.pth",
                             tmp_path / "out", heads=4, image_size=(42, 42))
    spec, flat, _ = backbone_folder.open_backbone(tmp_path / "out")
    data = np.load(folder / "videomaev2_ckpt_module_expected.npz")
    model = _model(spec, flat)
    clips = jnp.asarray(_pixels(data["in/x"]), jnp.float32)
    tokens = _block_outputs(model, clips)[-1]
    _close(tokens, data["out/tokens"])
    _close(model.classifier(_pooled(model, tokens)), data["out/logits"])
    # The spatial mean that TAL reads is that of the last block.
    features = model.features(clips)
    tokens = data["out/tokens"].reshape(2, 8, 9, 48)
    _close(features.last, tokens.mean(axis=2))


@pytest.mark.shared
def test_a_hugging_face_folder_equals_transformers(shared_dir, tmp_path):
    folder = shared_dir / "data/parity/hf_videomae_tiny"
    backbone_folder.convert_backbone(folder, tmp_path / "out")
    spec, flat, _ = backbone_folder.open_backbone(tmp_path / "out")
    data = np.load(folder / "expected.npz")
    model = _model(spec, flat)
    clips = np.moveaxis(data["in/pixel_values"], 1, 2)
    clips = jnp.asarray(_pixels(clips), jnp.float32)
    blocks = _block_outputs(model, clips)
    for i in range(spec.depth):
        _close(blocks[i], data[f"out/hidden_states/{i + 1}"])
    _close(model.classifier(_pooled(model, blocks[-1])), data["out/logits"])


@pytest.mark.shared
def test_positions_of_another_size_equal_the_public_resize(shared_dir):
    data = np.load(shared_dir
                   / "data/parity/adatad_adapter_posresize_tiny.npz")
    table = sincos_table(4, 4, 4, 48)
    _close(table.reshape(1, -1, 48), data["pos_embed"])
    rows = bicubic_matrix(4, 3)
    got = np.einsum("uhwc,gh,fw->ugfc", table, rows, rows)
    _close(got.reshape(1, -1, 48), data["pos_embed_resized"])


SPEC = VideoMaeSpec(width=24, depth=4, heads=2, mlp_width=48, patch=8,
                    clip_frames=4, image_size=(16, 24), num_classes=3)


@pytest.fixture(scope="module")
def small():
    model = VideoMae(SPEC, rngs=nnx.Rngs(0))
    clips = np.random.default_rng(0).integers(
        0, 256, (2, 4, 16, 24, 3), np.uint8)
    return model, jnp.asarray(clips)


@pytest.mark.parametrize("layers", [(0,), (3,), (1, 3), (0, 1, 2, 3),
                                    (1, 2)])
def test_taps_are_the_requested_blocks(small, layers):
    model, clips = small
    blocks = np.asarray(_block_outputs(model, clips))
    got = model.features(clips, taps=layers, tap_norm=False)
    for tap, layer in zip(got.taps, layers, strict=True):
        want = blocks[layer].reshape(2, 2, 2, 3, 24)
        np.testing.assert_allclose(tap, want, atol=1e-5)
    want = blocks[-1].reshape(2, 2, 6, 24).mean(axis=2)
    np.testing.assert_allclose(got.last, want, atol=1e-5)


def test_taps_are_standardized_then_pooled(small):
    model, clips = small
    blocks = np.asarray(_block_outputs(model, clips))[2]
    x = blocks.reshape(2, 2, 2, 3, 24)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(
        x.var(-1, keepdims=True) + 1e-6)
    # Three columns in two cells: 0-1 and 1-2 (adaptive average pooling).
    want = np.stack([x[:, :, :, 0:2].mean((2, 3)),
                     x[:, :, :, 1:3].mean((2, 3))], axis=2)[:, :, None]
    got = model.features(clips, taps=(2,), tap_grid=(1, 2)).taps[0]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_pooling_to_one_cell_is_the_mean():
    x = np.random.default_rng(0).normal(size=(1, 1, 3, 5, 2))
    got = pool_grid(jnp.asarray(x, jnp.float32), (1, 1))
    np.testing.assert_allclose(got[0, 0, 0, 0], x.mean((0, 1, 2, 3)),
                               atol=1e-6)


def test_only_requested_taps_are_stored(small):
    """Compiled memory grows with the taps asked for, not with the depth."""
    def bytes_of(depth, layers):
        spec = VideoMaeSpec(width=64, depth=depth, heads=2, mlp_width=64,
                            patch=8, clip_frames=4, image_size=(64, 64))
        template = Template(
            lambda: VideoMae(spec, rngs=nnx.Rngs(0)))
        return jax.jit(lambda tree, clips: template.bind(tree).features(
            clips, taps=layers)).lower(
            template.shapes, jax.ShapeDtypeStruct((4, 4, 64, 64, 3), "uint8")
        ).compile().memory_analysis().temp_size_in_bytes

    assert bytes_of(16, (14, 15)) <= 1.02 * bytes_of(4, (2, 3))


def test_other_frame_sizes_resample_positions(small):
    model, _ = small
    clips = jnp.zeros((1, 4, 32, 32, 3), jnp.uint8)
    assert model.features(clips).last.shape == (1, 2, 24)


def test_wrong_clip_length_is_refused(small):
    model, _ = small
    with pytest.raises(InputError, match="clips of 6 frames; .* for 4"):
        model.embed(jnp.zeros((1, 6, 16, 24, 3)))


def test_patch_embedding_is_a_convolution_without_padding():
    spec = VideoMaeSpec(width=12, depth=1, heads=2, mlp_width=8, patch=8,
                        clip_frames=4, image_size=(16, 24))
    embed = PatchEmbed(spec, nnx.Rngs(0))
    rng = np.random.default_rng(0)
    embed.kernel[...] = rng.normal(size=(2, 8, 8, 3, 12))
    embed.bias[...] = rng.normal(size=12)
    clips = rng.normal(size=(2, 4, 18, 26, 3)).astype(np.float32)
    expected = jax.lax.conv_general_dilated(
        clips, embed.kernel[...], window_strides=(2, 8, 8), padding="VALID",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        precision="highest") + embed.bias[...]
    assert expected.shape == (2, 2, 2, 3, 12)
    np.testing.assert_allclose(embed(jnp.asarray(clips)), expected, atol=1e-4)
