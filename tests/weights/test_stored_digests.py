"""Converted arrays stay the same bytes from one version to the next.

Fingerprints of converted folders stand in checkpoints of runs and in cached
features, so a conversion may never give other bytes. The digests were
computed when the format was first written; the numbers are integers scaled
by a power of two, equal on every machine.
"""

import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from losa_jax.weights import backbone_folder

BLOCK = {
    "norm1.weight": (12,), "norm1.bias": (12,), "attn.qkv.weight": (36, 12),
    "attn.q_bias": (12,), "attn.v_bias": (12,), "attn.proj.weight": (12, 12),
    "attn.proj.bias": (12,), "norm2.weight": (12,), "norm2.bias": (12,),
    "mlp.fc1.weight": (20, 12), "mlp.fc1.bias": (20,),
    "mlp.fc2.weight": (12, 20), "mlp.fc2.bias": (12,)}
AROUND = {"patch_embed.proj.weight": (12, 3, 2, 4, 4),
          "patch_embed.proj.bias": (12,)}
CLASSIFIER = {"fc_norm.weight": (12,), "fc_norm.bias": (12,),
              "head.weight": (5, 12), "head.bias": (5,)}


def _numbers(names, dtype_of=lambda shape: np.float32):
    state, start = {}, 0
    for name, shape in names.items():
        count = int(np.prod(shape))
        values = (np.arange(start, start + count) * 7919 % 2039 - 1019) / 1024
        state[name] = values.reshape(shape).astype(dtype_of(shape))
        start += count
    return state


def _videomae(depth, block=None, **more):
    blocks = {f"blocks.{i}.{name}": shape for i in range(depth)
              for name, shape in (BLOCK | (block or {})).items()}
    return {**AROUND, **more, **blocks, **CLASSIFIER}


def _plain(folder):
    path = folder / "plain.safetensors"
    save_file(_numbers(_videomae(3), lambda shape: (
        np.float16 if len(shape) > 1 else np.float32)), path)
    return path, {"heads": 2, "clip_frames": 4, "image_size": (8, 8)}


def _every_option(folder):
    path = folder / "every.safetensors"
    save_file(_numbers(_videomae(
        2, {"gamma_1": (12,), "gamma_2": (12,), "attn.scale": (3, 1, 1)},
        pos_embed=(1, 12, 12))), path)
    return path, {"image_size": (8, 12), "dtype": "bfloat16"}


def _hugging_face(folder):
    base = "videomae.encoder.layer.{}."
    names = {
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
        base + "output.dense.bias": (12,)}
    patches = "videomae.embeddings.patch_embeddings.projection."
    save_file(_numbers({
        patches + "weight": (12, 3, 2, 4, 4), patches + "bias": (12,),
        "videomae.layernorm.weight": (12,), "videomae.layernorm.bias": (12,),
        **{name.format(i): shape for i in range(2)
           for name, shape in names.items()}}), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({
        "image_size": 8, "num_frames": 4, "num_attention_heads": 2,
        "layer_norm_eps": 1e-12, "use_mean_pooling": False}))
    return folder, {}


@pytest.mark.parametrize("write, digest", [
    (_plain,
     "c112cbf0f01f6761cefebb1a4ce868fc7ede57158aee12e6169b06726c90f2f3"),
    (_every_option,
     "8caa07093a9f380d45a5b1d7d41423404ab67fcbc8405e6e7b6073288c3db0c0"),
    (_hugging_face,
     "cfe7a21d1fb78f80f8aef782d96c3531389836367690562f1bfb84c434eb3bd8"),
])
def test_backbones(tmp_path, write, digest):
    source, options = write(tmp_path)
    backbone_folder.convert_backbone(source, tmp_path / "out", **options)
    content = (tmp_path / "out" / backbone_folder.ARRAYS_FILE).read_bytes()
    facts = json.loads((tmp_path / "out" / "backbone.json").read_text())
    assert facts["sha256"] == hashlib.sha256(content).hexdigest()
    assert facts["sha256"] == digest


@pytest.mark.shared
@pytest.mark.parametrize("name, digest", [
    ("actionformer_tiny",
     "bd770f65fa42e63f2564ae73fd5f92d8bfc1dfe8f8d076449bffb2fcc53db5e5"),
    ("tridet_tiny",
     "cc86f75f2572e330be38acd1b652d49abee484c42a0490ea0be686120dd7872f"),
])
def test_heads(shared_dir, name, digest):
    from losa_jax.weights.head_names import from_public

    with np.load(shared_dir / f"data/parity/{name}.npz") as data:
        flat = from_public({key.removeprefix("param/"): data[key]
                            for key in data if key.startswith("param/")})
    got = hashlib.sha256()
    for key, array in sorted(flat.items()):
        array = np.ascontiguousarray(array, np.float32)
        got.update(f"{key} {array.shape}".encode() + array.tobytes())
    assert got.hexdigest() == digest
