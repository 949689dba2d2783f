"""Our backbone and torch's run of the same file see a real clip alike."""

import numpy as np
import pytest

from losa_jax.weights import backbone_folder
from losa_jax.weights.open_checkpoint import open_checkpoint
from tests.data.reading import read_frames, views_of_testing


@pytest.fixture(scope="module")
def real_backbone(shared_dir, tmp_path_factory):
    source = shared_dir / "data/weights/vit_small_patch14_dinov2.pth"
    output = tmp_path_factory.mktemp("dino") / "out"
    backbone_folder.convert_backbone(source, output, dtype="float32")
    return source, output


@pytest.mark.shared
@pytest.mark.torch
@pytest.mark.parametrize("size", [224, 112])
def test_features_of_a_real_clip(shared_dir, real_backbone, size):
    pytest.importorskip("torch")
    from losa_jax.weights.torch_check import compare_tokens

    source, output = real_backbone
    spec, params, _ = backbone_folder.open_backbone(output)
    video = sorted((shared_dir / "data/gestures/videos").glob("*.mp4"))[0]
    clip = views_of_testing(read_frames(video, range(20, 52, 2)), size,
                            "squash")[None]
    assert clip.shape == (1, 16, size, size, 3) and np.ptp(clip) > 100
    found = compare_tokens(spec, open_checkpoint(source).tensors, params,
                           clip)
    assert found.image_size == (size, size)
    assert found.largest <= 1e-4
