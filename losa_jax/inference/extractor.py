"""Turns clips and windows of videos into feature vectors."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from losa_jax.data.windows.batch import Inputs
from losa_jax.distributed import sharding
from losa_jax.errors import InputError
from losa_jax.inference.load import Run
from losa_jax.models.backbones import backbone_template, family_of
from losa_jax.models.backbones.base import BackboneSpec
from losa_jax.models.ops.params import Tree, flatten, nest
from losa_jax.training import specs
from losa_jax.training.encoder import frozen_dtype, frozen_encoder
from losa_jax.utils.xla_options import compiler_options


@dataclasses.dataclass(frozen=True)
class Extractor:
    """How windows become features.

    Attributes:
      spec: of the backbone.
      width: channels of the features.
      encode: a batch of windows to a vector per clip [b, width] or per token
        [b, t, width].
      facts: for the record.
    """

    spec: BackboneSpec
    width: int
    encode: Callable[[Inputs], jax.Array]
    facts: dict[str, Any]


def clip_extractor(config: Any, mesh: Mesh, normalization: str) -> Extractor:
    """Returns an encoder of one vector a clip, by the backbone alone.

    Args:
      normalization: of pixels, "imagenet" or "zero_one" (divided by 255).

    Raises:
      InputError: a key that does not fit the backbone.
    """
    spec, flat, info = specs.configured_backbone(config)
    if not spec.clip_pooling:
        raise InputError(
            f"{config.backbone.checkpoint}: a {family_of(spec)} backbone "
            "gives no vector for a whole clip: set "
            "--features=last")
    dtype = specs.compute_dtype(config.backbone.dtype)
    frozen = sharding.read_onto_mesh(nest(flat), mesh, frozen_dtype(dtype))
    template = backbone_template(spec)

    @functools.partial(jax.jit, compiler_options=compiler_options(mesh))
    def encode(frozen, clips):
        if normalization == "zero_one":
            # Cancels the backbone's own normalization.
            clips = (clips.astype(jnp.float32) / 255
                     * jnp.asarray(spec.pixel_std)
                     + jnp.asarray(spec.pixel_mean))
        return template.bind(frozen).mean_features(clips, dtype)

    sharded = NamedSharding(mesh, PartitionSpec("data"))

    def encode_batch(inputs):
        return encode(frozen, jax.device_put(inputs["frames"], sharded))

    return Extractor(spec, spec.width, encode_batch, {
        "pooling": spec.clip_pooling,
        "pixels": pixel_facts(normalization, spec),
        "backbone": {"fingerprint": info.fingerprint, "source": info.source,
                     "dtype": config.backbone.dtype}})


def token_extractor(config: Any, mesh: Mesh, run: Run | None) -> Extractor:
    """Returns an extractor of one vector per token.

    It is the input of the run's head, standardized and with adapters, or
    without a run the spatial mean of the backbone's last block.
    """
    facts: dict[str, Any] = {}
    if run is not None:
        model, state = run.model, run.state
        assert model.spec is not None  # files of features were refused
        spec, encode, detector = model.spec, model.encode, model.detector
        arrays: tuple = state.ema, state.statistics, model.frozen
        facts["pooling"] = (spec.last_pooling
                            + "; standardized, adapters added")
        facts["backbone"] = {"fingerprint": model.fingerprint,
                             "dtype": config.backbone.dtype}
        facts["run"] = {"kind": config.adapter.kind, "step": int(state.step),
                        "fingerprint": tree_fingerprint(state.ema)}
    else:
        spec, flat, info = specs.configured_backbone(config)
        specs.check_window(config, spec)
        facts["pooling"] = spec.last_pooling
        encoder = frozen_encoder(config, spec, flat, (), mesh)
        encode, detector = encoder.encode, None
        arrays = {}, None, encoder.frozen
        facts["backbone"] = {"fingerprint": info.fingerprint,
                             "source": info.source,
                             "dtype": config.backbone.dtype}

    facts["pixels"] = pixel_facts("imagenet", spec)

    @functools.partial(jax.jit, compiler_options=compiler_options(mesh))
    def rows(parameters, statistics, frozen, batch):
        valid = batch["valid_samples"]
        features = encode(frozen, parameters, {"frames": batch["frames"]},
                          valid, None)
        if detector is None:
            return rearrange(features.last, "b n u c -> b (n u) c")
        return detector.bind(parameters).fused(features, statistics, valid)[0]

    def encode_batch(inputs):
        batch = sharding.put(inputs, sharding.batch_shardings(inputs, mesh))
        return rows(*arrays, batch)

    return Extractor(spec, spec.width, encode_batch, facts)


def pixel_facts(normalization: str, spec: BackboneSpec) -> dict[str, Any]:
    """Returns how pixels of 0 .. 255 are normalized."""
    if normalization == "zero_one":
        return {"normalization": "pixel / 255"}
    return {"normalization": "(pixel - mean) / std",
            "mean": list(spec.pixel_mean), "std": list(spec.pixel_std)}


def tree_fingerprint(tree: Tree) -> str:
    """Returns the hexadecimal SHA-256 of a tree's names and values."""
    digest = hashlib.sha256()
    for name, leaf in sorted(flatten(tree).items()):
        array = np.ascontiguousarray(jax.device_get(leaf))
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
