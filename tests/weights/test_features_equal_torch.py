"""A converted backbone computes what torch computes on the checkpoint."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from losa_jax.models.backbones.videomae import VideoMae, VideoMaeSpec
from losa_jax.models.ops.params import Template, nest
from losa_jax.weights import backbone_folder
from losa_jax.weights.name_table import expected_shapes
from losa_jax.weights.open_checkpoint import open_checkpoint
from tests.data.reading import read_frames, views_of_testing

pytestmark = pytest.mark.torch
TINY = dict(width=12, depth=2, heads=3, mlp_width=24, patch=4, clip_frames=4,
            image_size=(8, 8), num_classes=2)


def _compare(source, output, clip):
    """Tokens after the last block: (largest difference, largest value)."""
    import torch

    from benchmarks.common.videomae_torch import as_torch, block, embed

    spec, params, _ = backbone_folder.open_backbone(output)
    pixels = (clip - np.array(spec.pixel_mean)) / np.array(spec.pixel_std)
    state = as_torch({name: tensor.read() for name, tensor in
                      open_checkpoint(source).tensors.items()})
    expected = embed(state, torch.from_numpy(np.ascontiguousarray(
        np.moveaxis(pixels, -1, 1), np.float32)), spec)
    for i in range(spec.depth):
        prefix = f"blocks.{i}."
        expected = block({name.removeprefix(prefix): tensor for name, tensor
                          in state.items() if name.startswith(prefix)},
                         expected, spec)
    template = Template(lambda: VideoMae(spec, rngs=nnx.Rngs(0)))

    @jax.jit
    def run(params, clip):
        model = template.bind(params)
        x = model.embed(clip).reshape(1, -1, spec.width)
        return model.run_blocks(x)[0]

    got = run(nest({name: jnp.asarray(array, jnp.float32)
                    for name, array in params.items()}), clip)
    expected = expected.numpy()
    return np.abs(expected - got).max(), np.abs(expected).max()


def _convert_random(folder, options):
    """A random checkpoint, converted: (source, output, clip)."""
    spec = VideoMaeSpec(**TINY | options)
    rng = np.random.default_rng(0)
    source = folder / "tiny.safetensors"
    backbone_folder.save_source(source, spec, {
        name: rng.normal(size=shape, scale=0.3).astype(np.float32)
        for name, shape in expected_shapes(spec).items()})
    backbone_folder.convert_backbone(source, folder / "out")
    size = (min(side, 8 * spec.patch) for side in spec.image_size)
    return source, folder / "out", rng.integers(
        0, 256, (1, spec.clip_frames, *size, 3), np.uint8)


@pytest.mark.parametrize("options", [
    {}, {"cosine_attention": True}, {"layer_scale": True},
    {"positions": "learned", "image_size": (40, 48)},
    {"image_size": (40, 48), "final_norm": "norm"}])
def test_tokens_of_random_weights(tmp_path, options):
    pytest.importorskip("torch")
    largest, scale = _compare(*_convert_random(tmp_path, options))
    assert largest <= 2e-5 * max(1, scale)


def test_the_comparison_detects_another_model(
        tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from benchmarks.common import videomae_torch
    monkeypatch.setattr(videomae_torch, "MAX_LOGIT_SCALE", -5.0)
    largest, scale = _compare(
        *_convert_random(tmp_path, {"cosine_attention": True}))
    assert largest > 1e-4 * max(1, scale)


@pytest.fixture(scope="module")
def real_backbone(shared_dir, tmp_path_factory):
    source = shared_dir / "data/weights/vit_small_patch14_dinov2.pth"
    output = tmp_path_factory.mktemp("dino") / "out"
    backbone_folder.convert_backbone(source, output, dtype="float32")
    return source, output


@pytest.mark.shared
@pytest.mark.parametrize("size", [224, 112])
def test_tokens_of_a_real_clip(shared_dir, real_backbone, size):
    pytest.importorskip("torch")
    video = sorted((shared_dir / "data/gestures/videos").glob("*.mp4"))[0]
    clip = views_of_testing(read_frames(video, range(20, 52, 2)), size,
                            "squash")[None]
    assert clip.shape == (1, 16, size, size, 3) and np.ptp(clip) > 100
    assert _compare(*real_backbone, clip)[0] <= 1e-4
