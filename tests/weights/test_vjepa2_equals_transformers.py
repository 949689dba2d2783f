"""A converted V-JEPA 2 computes what transformers computes on its files."""

import numpy as np
import pytest

import losa_jax
from losa_jax.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from losa_jax.weights import backbone_folder

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("frames, size", [(6, 32), (10, 48)])
def test_features_and_logits_equal_transformers(tmp_path, frames, size):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    torch.manual_seed(0)
    model = transformers.VJEPA2ForVideoClassification(
        transformers.VJEPA2Config(
            hidden_size=60, num_hidden_layers=4, num_attention_heads=3,
            mlp_ratio=3.0, patch_size=16, crop_size=size, frames_per_clip=8,
            num_pooler_layers=1, pred_hidden_size=12, num_labels=4,
            pred_num_attention_heads=2, pred_num_hidden_layers=1,
            attn_implementation="sdpa")).eval()
    for parameter in model.parameters():  # nothing may be 0 or 1
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "public")
    backbone_folder.convert_backbone(tmp_path / "public", tmp_path / "out")
    backbone = losa_jax.load_backbone(tmp_path / "out")
    clips = np.random.default_rng(0).integers(
        0, 256, (2, frames, size, size, 3), np.uint8)
    pixels = (clips - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    with torch.no_grad():
        public = model(torch.from_numpy(np.moveaxis(
            pixels, -1, 2).astype(np.float32)), output_hidden_states=True)
    got = backbone.features(clips, taps=(0, 1, 2), tap_norm=False)
    # The last hidden state of transformers is normed.
    assert len(public.hidden_states) == 5
    for tap, want in zip(got.taps, public.hidden_states[1:], strict=False):
        _close(tap.reshape(want.shape), want.numpy())
    _close(backbone.classify(clips), public.logits.numpy())


def _close(got, want):
    np.testing.assert_allclose(got, want, rtol=0,
                               atol=2e-5 * np.abs(want).max())
