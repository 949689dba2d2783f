"""VideoPrism's public archives in and out; wrong files are refused."""

import re
import zipfile

import ml_dtypes
import numpy as np
import pytest

from losa_jax import convert
from losa_jax.errors import InputError
from losa_jax.models.backbones.videoprism import VideoPrismSpec
from losa_jax.weights import backbone_folder
from losa_jax.weights.name_table import expected_shapes, source_tensors
from losa_jax.weights.open_checkpoint import open_checkpoint

SPEC = VideoPrismSpec(width=24, depth=5, heads=3, mlp_width=40, patch=6,
                      clip_frames=5, image_size=(18, 18), temporal_depth=2,
                      position_frames=5)
STACK = "params/spatial_encoder/transformers_stack/x_layers"


@pytest.fixture
def params():
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.2, shape).astype(np.float32)
            for name, shape in expected_shapes(SPEC).items()}


@pytest.fixture
def tensors(params):
    return source_tensors(SPEC, params)


def _converted(tmp_path, tensors, **options):
    np.savez(tmp_path / "prism.npz", **tensors)
    backbone_folder.convert_backbone(tmp_path / "prism.npz", tmp_path / "out",
                                     **options)
    return backbone_folder.open_backbone(tmp_path / "out")[:2]


def test_names_and_layouts_are_those_of_the_public_code(params, tensors):
    assert tensors["params/patch_projection/linear/kernel"].shape == (108, 24)
    assert tensors["params/temporal_pos_emb/emb_var"].shape == (5, 24)
    assert tensors[f"{STACK}/self_attention/query/b"].shape == (3, 3, 8)
    # Head h of the query has the columns from 8 h on; `post` reads its rows.
    query = tensors[f"{STACK}/self_attention/query/w"]
    post = tensors[f"{STACK}/self_attention/post/w"]
    assert query.shape == post.shape == (3, 24, 3, 8)
    kernels = (params[f"encoder/spatial_blocks/attn/{name}/kernel"]
               for name in ("query", "post"))
    ours_query, ours_post = kernels
    np.testing.assert_array_equal(query[1, :, 2], ours_query[1, :, 16:])
    np.testing.assert_array_equal(post[1, :, 2], ours_post[1, 16:].T)


def test_an_archive_comes_back_bit_for_bit(tmp_path, params, tensors, capsys):
    spec, flat = _converted(tmp_path, tensors)
    assert spec == SPEC
    for name, array in params.items():
        assert flat[name].tobytes() == array.tobytes(), name
    back = tmp_path / "back.npz"
    assert convert.main([str(tmp_path / "out"), "--to=torch",
                         f"--output={back}"]) == 0
    with np.load(back) as archive:
        assert set(archive) == set(tensors)
        for name, array in tensors.items():
            assert archive[name].tobytes() == array.tobytes(), name
    assert convert.main([str(back), f"--output={tmp_path / 'again'}",
                         "--verify"]) == 0
    assert "verified: 40 tensors equal" in capsys.readouterr().out


def test_blocks_stored_one_by_one_are_stacked(tmp_path, params, tensors):
    single = {}
    for name, array in tensors.items():
        if "/x_layers/" in name:
            single |= {name.replace("/x_layers/", f"/x_layers_{i}/"): part
                       for i, part in enumerate(array)}
        else:
            single[name] = array
    spec, flat = _converted(tmp_path, single)
    assert spec == SPEC and "stacked" in str(
        open_checkpoint(tmp_path / "prism.npz").notes)
    for name, array in params.items():
        np.testing.assert_array_equal(flat[name], array)
    del single[f"{STACK}_1/layer_norm/scale"]
    with pytest.raises(InputError, match="missing: .*x_layers/layer_norm/scale"
                       " .*\n.*unexpected: .*x_layers_0/layer_norm/scale"):
        _converted(tmp_path, single)


def test_a_folder_with_one_archive_is_read(tmp_path, tensors):
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "README.md").write_text("VideoPrism")
    np.savez(folder / "flax.npz", **tensors)
    assert open_checkpoint(folder).family == "videoprism"
    np.savez(folder / "other.npz", **tensors)
    with pytest.raises(InputError, match="no .* single .npz in it"):
        open_checkpoint(folder)


def test_sixteen_bits_and_compression_are_read(tmp_path, params, tensors):
    # NumPy saves bfloat16 as two bytes without a type.
    np.savez_compressed(tmp_path / "half.npz", **{
        name: array.astype(ml_dtypes.bfloat16)
        for name, array in tensors.items()})
    backbone_folder.convert_backbone(tmp_path / "half.npz", tmp_path / "half")
    _, flat, _ = backbone_folder.open_backbone(tmp_path / "half")
    for name, array in params.items():
        assert flat[name].dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(flat[name],
                                      array.astype(ml_dtypes.bfloat16))


def test_sizes_that_no_tensor_shows_are_given(tmp_path, tensors):
    table = "params/spatial_pos_emb/emb_var"
    tensors[table] = tensors[table][:6]
    with pytest.raises(InputError, match="6 spatial positions .*--image_size"):
        _converted(tmp_path, tensors)
    spec, _ = _converted(tmp_path, tensors, image_size=(12, 18),
                         clip_frames=9)
    assert (spec.grid, spec.clip_frames, spec.position_frames) == ((2, 3), 9, 5)
    with pytest.raises(InputError, match="heads cannot be chosen"):
        _converted(tmp_path, tensors, heads=4)


def test_all_problems_are_listed_at_once(tmp_path, tensors):
    del tensors["params/temporal_ln/bias"]
    tensors["params/extra"] = np.zeros(3, np.float32)
    bias = f"{STACK}/self_attention/key/b"
    tensors[bias] = np.zeros((3, 4, 6), np.float32)  # other heads
    tensors["params/patch_projection/linear/bias"] = np.full(24, np.nan,
                                                             np.float32)
    with pytest.raises(InputError) as error:
        _converted(tmp_path, tensors)
    message = str(error.value)
    for line in ("missing: params/temporal_ln/bias (24,)",
                 "unexpected: params/extra (3,)",
                 f"wrong shape: {bias} is (3, 4, 6), should be (3, 3, 8)",
                 "not finite: params/patch_projection/linear/bias, 24 of 24"):
        assert line in message
    assert "3 spatial and 2 temporal blocks of width 24, 3 heads" in message
    assert not (tmp_path / "out").exists()


def test_an_encoder_without_blocks_is_refused(tmp_path, tensors):
    with pytest.raises(InputError, match="no VideoPrism encoder: its spatial"):
        _converted(tmp_path, {name: array for name, array in tensors.items()
                              if "/spatial_encoder/" not in name})


def test_a_missing_block_of_a_file_with_single_blocks_is_refused(tmp_path,
                                                                 tensors):
    single = {}
    for name, array in tensors.items():
        if "/x_layers/" in name:
            single |= {name.replace("x_layers", f"x_layers_{i}"): part
                       for i, part in enumerate(array)}
        else:
            single[name] = array
    with pytest.raises(InputError, match="no VideoPrism encoder: its spatial"):
        _converted(tmp_path, {
            name: array for name, array in single.items()
            if "/spatial_encoder/transformers_stack/x_layers_0/" not in name})


def test_hugging_faces_layout_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(InputError, match="Hugging Face, which is not supported"
                       ".*google/videoprism-base-f16r288"):
        _converted(tmp_path, {
            "spatial_layers.0.attention.q_proj.weight": np.zeros((4, 4))})


def test_text_encoders_are_dropped(tmp_path, tensors):
    spec, _ = _converted(tmp_path, tensors | {
        "params/text_encoder/cls_emb": np.zeros((1, 1, 24), np.float32)})
    assert spec == SPEC
    assert open_checkpoint(tmp_path / "prism.npz").notes == (
        "a video-text model: 1 tensors of its text encoder are dropped",)


def test_damaged_archives_are_named(tmp_path, tensors):
    path = tmp_path / "prism.npz"
    np.savez(path, params=np.array([{}]))
    with pytest.raises(InputError, match="params holds Python objects"):
        open_checkpoint(path)
    np.savez(path, **tensors)
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-100])
    with pytest.raises(InputError, match=re.escape(str(path))
                       + ": not a NumPy archive [(].npz[)] but a damaged zip"):
        open_checkpoint(path)
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read .*fetch it again"):
        backbone_folder.convert_backbone(path, tmp_path / "out")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    with pytest.raises(InputError, match="not a NumPy archive .* but a PyTorch "
                       "checkpoint: give it with the suffix of its own"):
        open_checkpoint(path)
    path.write_text("<html>")
    with pytest.raises(InputError, match="not a NumPy archive .* HTML page"):
        open_checkpoint(path)
