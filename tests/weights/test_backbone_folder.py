"""Conversion is exact in both directions, and reports all that does not fit."""

import json
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from losa_jax.errors import InputError
from losa_jax.models.backbones.videomae import VideoMaeSpec
from losa_jax.weights import backbone_folder, videomae
from losa_jax.weights.name_table import expected_shapes, source_tensors
from losa_jax.weights.open_checkpoint import open_checkpoint
from losa_jax.weights.torch_pickle import load_torch_zip

SPEC = VideoMaeSpec(
    width=12, depth=3, heads=2, mlp_width=20, patch=4, tubelet=2,
    clip_frames=4, image_size=(8, 12), positions="learned",
    layer_scale=True, cosine_attention=True, num_classes=5)


def _params(spec=SPEC, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in
            expected_shapes(spec).items()}


def _source(tmp_path, change=lambda state: None, spec=SPEC):
    state = source_tensors(spec, _params(spec))
    change(state)
    path = tmp_path / "source.safetensors"
    save_file(state, path)
    return path


def _convert(path, output, **options):
    return backbone_folder.convert_backbone(
        path, output, **{"heads": 2, "clip_frames": 4,
                         "image_size": (8, 12), **options})


@pytest.mark.parametrize("spec", [
    SPEC,
    VideoMaeSpec(12, 2, 3, 24, patch=4, clip_frames=4, final_norm="norm"),
    VideoMaeSpec(12, 2, 3, 24, patch=4, clip_frames=4, final_norm="none"),
])
def test_round_trip_is_bit_exact(tmp_path, spec):
    params = _params(spec)
    path = tmp_path / "model.safetensors"
    backbone_folder.save_source(path, spec, params)
    # Heads, frames and size come from the file's metadata.
    assert backbone_folder.convert_backbone(path, tmp_path / "out") == spec
    got_spec, got, info = backbone_folder.open_backbone(tmp_path / "out")
    assert got_spec == spec and info.source == "model.safetensors"
    assert set(got) == set(params)
    for name, array in params.items():
        assert got[name].tobytes() == array.tobytes(), name


def test_layouts_equal_hand_written_ones(tmp_path):
    """torch keeps linear weights (out, in) and convolutions (out, in, t, h,
    w); ours are (in, out) and (t, h, w, in, out)."""
    state = source_tensors(SPEC, _params())
    params = _params()
    np.testing.assert_array_equal(state["blocks.1.mlp.fc1.weight"],
                                  params["blocks/mlp/fc1/kernel"][1].T)
    assert state["patch_embed.proj.weight"].shape == (12, 3, 2, 4, 4)
    assert (state["patch_embed.proj.weight"][7, 2, 1, 3, 0]
            == params["patch_embed/kernel"][1, 3, 0, 2, 7])
    assert state["blocks.0.attn.scale"].shape == (2, 1, 1)
    assert state["pos_embed"].shape == (1, 2 * 2 * 3, 12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_dtype_is_cast_once(tmp_path, dtype):
    _convert(_source(tmp_path), tmp_path / "out", dtype=dtype)
    _, got, _ = backbone_folder.open_backbone(tmp_path / "out")
    expected = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[dtype]
    for name, array in _params().items():
        assert got[name].dtype == expected
        np.testing.assert_array_equal(got[name], array.astype(expected))


def test_all_errors_are_reported_at_once_and_nothing_is_written(tmp_path):
    def spoil(state):
        del state["blocks.1.attn.v_bias"]
        state["blocks.0.attn.extra"] = np.zeros(3, np.float32)
        state["blocks.2.mlp.fc2.bias"] = np.zeros(7, np.float32)
        state["head.bias"][2] = np.nan

    path = _source(tmp_path, spoil)
    with pytest.raises(InputError) as caught:
        _convert(path, tmp_path / "out")
    report = str(caught.value)
    assert "4 tensors" in report
    assert "missing: blocks.1.attn.v_bias (12,)" in report
    assert "unexpected: blocks.0.attn.extra (3,)" in report
    assert "wrong shape: blocks.2.mlp.fc2.bias is (7,), should be (12,)" in (
        report)
    assert "not finite: head.bias, 1 of 5" in report
    assert [p.name for p in tmp_path.iterdir()] == ["source.safetensors"]


def test_float16_overflow_is_reported(tmp_path):
    def spoil(state):
        state["head.bias"][0] = 1e6

    with pytest.raises(InputError, match="not finite: head.bias, 1 of 5 "
                                         "values as float16"):
        _convert(_source(tmp_path, spoil), tmp_path / "out", dtype="float16")


def test_only_a_converted_folder_is_replaced(tmp_path):
    path = _source(tmp_path)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="precious exists and is no conv"):
        _convert(path, precious)
    assert (precious / "thesis.txt").read_text() == "years of work"
    _convert(path, tmp_path / "out")
    _convert(path, tmp_path / "out", dtype="float16")
    _, got, _ = backbone_folder.open_backbone(tmp_path / "out")
    assert got["patch_embed/bias"].dtype == np.float16


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:9\nsize 9\n"


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage, message", [
    (lambda d: (d / "backbone.json").unlink(), "no converted backbone"),
    (lambda d: (d / "backbone.json").write_text("{"),
     "backbone.json: not JSON: .*convert the checkpoint again"),
    (lambda d: (d / "backbone.json").write_text("[]"), "not describe a back"),
    (lambda d: (d / "backbone.json").write_text(LFS), "json: .*git lfs pull"),
    (lambda d: (d / "backbone.json").write_text("<html>"), "an HTML page"),
    (lambda d: (d / "backbone.safetensors").write_text(LFS),
     "safetensors: not the file that backbone.json describes but a Git LFS "
     "pointer: run `git lfs pull`"),
    (lambda d: (d / "backbone.safetensors").write_text("<html>"),
     "but an HTML page"),
    (lambda d: (d / "backbone.safetensors").write_bytes(
        (d / "backbone.safetensors").read_bytes()[:-9]),
     "backbone.safetensors is not the file that backbone.json .*replaced"),
    (lambda d: (d / "backbone.safetensors").unlink(), "s: is missing"),
    (lambda d: flip(d / "backbone.safetensors", -5), "is not the file that"),
])
def test_damaged_folders_are_refused(tmp_path, damage, message):
    _convert(_source(tmp_path), tmp_path / "out")
    damage(tmp_path / "out")
    with pytest.raises(InputError, match=message):
        backbone_folder.open_backbone(tmp_path / "out")


def _rewrite_facts(folder, change):
    path = folder / "backbone.json"
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))


def test_folders_without_a_family_are_loaded(tmp_path):
    spec = _convert(_source(tmp_path), tmp_path / "out")
    facts = json.loads((tmp_path / "out/backbone.json").read_text())
    assert facts["family"] == "videomae" and facts["format_version"] == 1
    _rewrite_facts(tmp_path / "out", lambda facts: facts.pop("family"))
    assert backbone_folder.open_backbone(tmp_path / "out")[0] == spec


@pytest.mark.parametrize("change, message", [
    ({"family": "backbones"}, "of backbones, not 1 of videomae"),
    ({"format_version": 2}, "has format 2 of .*, not 1 of"),
    ({"spec": {**vars(SPEC), "positions": "none"}},
     r"backbone.json: does not describe .*VideoMaeSpec.positions='none'"),
])
def test_folders_of_another_format_are_refused(tmp_path, change, message):
    _convert(_source(tmp_path), tmp_path / "out")
    _rewrite_facts(tmp_path / "out", lambda facts: facts.update(change))
    with pytest.raises(InputError, match=message):
        backbone_folder.open_backbone(tmp_path / "out")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_loaded_backbone_gives_features(tmp_path, dtype):
    spec = _convert(_source(tmp_path), tmp_path / "out")
    backbone = backbone_folder.load_backbone(tmp_path / "out", dtype=dtype)
    assert backbone.spec == spec
    assert backbone.blocks.mlp.fc1.kernel[...].dtype == dtype
    assert backbone.blocks.norm1.scale[...].dtype == "float32"
    clips = np.zeros((3, 4, 8, 12, 3), np.uint8)
    features = backbone.features(clips, taps=(0, 2), dtype=dtype)
    assert features.last.shape == (3, 2, 12)
    assert features.last.dtype == "float32"
    assert features.taps.shape == (2, 3, 2, 2, 3, 12)
    assert features.taps.dtype == dtype


def test_unknown_width_asks_for_heads(tmp_path):
    with pytest.raises(InputError, match="width 12 .*--heads=N"):
        spec = VideoMaeSpec(**{**vars(SPEC), "cosine_attention": False})
        _convert(_source(tmp_path, spec=spec), tmp_path / "out", heads=None)


def test_known_sizes_need_no_options():
    class Shape:
        def __init__(self, *shape):
            self.shape = shape

    for width, heads in ((384, 6), (768, 12), (1024, 16), (1280, 16),
                         (1408, 16)):
        spec = videomae.infer_spec({
            "patch_embed.proj.weight": Shape(width, 3, 2, 14, 14),
            "blocks.0.mlp.fc1.weight": Shape(4 * width, width)})
        assert (spec.heads, spec.clip_frames, spec.image_size) == (
            heads, 16, (224, 224))


def test_a_file_of_another_model_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"conv1.weight": np.zeros((3, 3), np.float32)}, path)
    with pytest.raises(InputError, match="no VideoMAE.* encoder.*conv1"):
        _convert(path, tmp_path / "out")


# --- PyTorch's files, read without torch -----------------------------------


@pytest.mark.torch
@pytest.mark.parametrize("wrapper", ["module", "model", "state_dict", None])
def test_torch_files_are_read_without_torch(tmp_path, wrapper):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(array) for name, array in
             source_tensors(SPEC, _params()).items()}
    path = tmp_path / "model.pth"
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, path)
    _convert(path, tmp_path / "out")
    _, got, _ = backbone_folder.open_backbone(tmp_path / "out")
    for name, array in _params().items():
        np.testing.assert_array_equal(got[name], array)


@pytest.mark.torch
def test_training_checkpoints_with_unknown_objects_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    import argparse

    state = {"w": torch.arange(6.0).reshape(2, 3)}
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))])
    path = tmp_path / "train.pth"
    torch.save({"model": state, "args": argparse.Namespace(lr=0.1),
                "optimizer": optimizer.state_dict(),
                "seen": {1, 2}, "best": np.float64(3.0)}, path)
    content = load_torch_zip(path)
    np.testing.assert_array_equal(content["model"]["w"].read(),
                                  [[0, 1, 2], [3, 4, 5]])


@pytest.mark.torch
def test_views_and_types(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0).reshape(4, 6)
    state = {"t": base.T, "part": base[1:3, 2:4],
             "bf16": base.to(torch.bfloat16), "half": base.half(),
             "long": base.long(), "scalar": torch.tensor(3.5),
             "parameter": torch.nn.Parameter(base), "empty": base[:0]}
    path = tmp_path / "views.pth"
    torch.save(state, path)
    content = load_torch_zip(path)
    for name, tensor in state.items():
        want = tensor.detach().to(torch.float64).numpy()
        np.testing.assert_array_equal(
            content[name].read().astype(np.float64), want, err_msg=name)


@pytest.mark.shared
@pytest.mark.torch
def test_the_real_file_reads_as_torch_reads_it(shared_dir):
    torch = pytest.importorskip("torch")
    path = shared_dir / "data/weights/vit_small_patch14_dinov2.pth"
    got = load_torch_zip(path)["module"]
    want = torch.load(path, weights_only=True)["module"]
    assert list(got) == list(want)
    for name, tensor in want.items():
        np.testing.assert_array_equal(got[name].read(), tensor.numpy())


def _zip_with(path, payload):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", payload)
        archive.writestr("x/byteorder", "little")


class _Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        import os
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    marker = tmp_path / "ran"
    path = tmp_path / "attack.pth"
    _zip_with(path, pickle.dumps({"module": _Attack(marker)}))
    with pytest.raises(InputError, match="posix.system.*refused"):
        load_torch_zip(path)
    assert not marker.exists()
    _zip_with(path, b"cbuiltins\neval\n(S'1+1'\ntR.")
    with pytest.raises(InputError, match="builtins.eval.*refused"):
        load_torch_zip(path)


@pytest.mark.parametrize("content, message", [
    (b"", "not a PyTorch checkpoint but an empty file"),
    (b"hello", "not a PyTorch checkpoint but a text file"),
    (b"\xff" * 9, "no PyTorch checkpoint"),
    (b"\x80\x02}q\x00.", "a Python pickle, which can run code.*older than 1.6"),
    (b"PK\x03\x04 and then nothing", "but a damaged zip archive: download"),
])
def test_files_of_other_formats_are_refused(tmp_path, content, message):
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_torch_zip(path)


@pytest.mark.shared
def test_a_truncated_checkpoint_is_refused(shared_dir, tmp_path):
    whole = (shared_dir / "data/parity/videomaev2_ckpt_module.pth"
             ).read_bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(InputError, match="damaged zip archive: download"):
        backbone_folder.convert_backbone(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["cut.pth"]


def test_dropping_the_pretraining_decoder_is_reported(tmp_path):
    state = {f"encoder.{name}": array for name, array in
             source_tensors(SPEC, _params()).items()}
    state["decoder.blocks.0.norm1.weight"] = np.zeros(4, np.float32)
    state["mask_token"] = np.zeros((1, 1, 4), np.float32)
    path = tmp_path / "pretrained.safetensors"
    save_file(state, path)
    checkpoint = open_checkpoint(path)
    assert any("2 tensors of its decoder" in n for n in checkpoint.notes)
    assert _convert(path, tmp_path / "out") == SPEC


def test_hugging_face_joins_query_key_and_value(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({
        "image_size": 8, "num_frames": 4, "num_attention_heads": 2,
        "layer_norm_eps": 1e-12, "use_mean_pooling": False}))
    base = "encoder.layer.0."
    shapes = {
        "embeddings.patch_embeddings.projection.weight": (12, 3, 2, 4, 4),
        "embeddings.patch_embeddings.projection.bias": (12,),
        base + "attention.attention.query.weight": (12, 12),
        base + "attention.attention.key.weight": (12, 12),
        base + "attention.attention.value.weight": (12, 12),
        base + "attention.attention.query.bias": (12,),
        base + "attention.attention.value.bias": (12,),
        base + "attention.output.dense.weight": (12, 12),
        base + "attention.output.dense.bias": (12,),
        base + "layernorm_before.weight": (12,),
        base + "layernorm_before.bias": (12,),
        base + "layernorm_after.weight": (12,),
        base + "layernorm_after.bias": (12,),
        base + "intermediate.dense.weight": (20, 12),
        base + "intermediate.dense.bias": (20,),
        base + "output.dense.weight": (12, 20),
        base + "output.dense.bias": (12,),
        "layernorm.weight": (12,), "layernorm.bias": (12,)}
    state = {f"videomae.{name}": rng.normal(size=shape).astype(np.float32)
             for name, shape in shapes.items()}
    save_file(state, folder / "model.safetensors")
    spec = backbone_folder.convert_backbone(folder, tmp_path / "out")
    assert spec.norm_epsilon == 1e-12 and spec.final_norm == "norm"
    _, got, _ = backbone_folder.open_backbone(tmp_path / "out")
    part = "videomae." + base + "attention.attention."
    kernel = got["blocks/attn/qkv/kernel"][0]
    for i, name in enumerate(("query", "key", "value")):
        np.testing.assert_array_equal(kernel[:, 12 * i:12 * (i + 1)],
                                      state[f"{part}{name}.weight"].T)
    np.testing.assert_array_equal(got["blocks/attn/q_bias"][0],
                                  state[part + "query.bias"])
