"""Turns the clips or the tokens of videos into feature vectors."""

import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.sharding import Mesh

from losa_jax.data.records import Video, Window
from losa_jax.data.windows import readers, sampling, stream
from losa_jax.data.windows.batch import Inputs
from losa_jax.distributed import sharding
from losa_jax.errors import InputError
from losa_jax.models.backbones import backbone_template, family_of
from losa_jax.models.backbones.base import BackboneSpec
from losa_jax.models.ops.params import Tree, flatten, nest
from losa_jax.training import specs
from losa_jax.training.encoder import frozen_dtype, frozen_encoder
from losa_jax.training.restore import Run
from losa_jax.utils.xla_options import compiler_options

# Clips encoded at once on each device where backbone.chunk_clips is 0.
CLIPS_A_DEVICE = 16


class Rows(NamedTuple):
    """How the vectors of a video are computed.

    Attributes:
      length: number of vectors.
      windows: yields the windows and frames of a video.
      place: maps (window, its output) to (rows of the video, their vectors).
    """

    length: int
    windows: Callable[[int], Iterator[tuple[Window, np.ndarray]]]
    place: Callable[[Window, np.ndarray], tuple[Any, np.ndarray]]


class Extractor(NamedTuple):
    """How videos become features.

    Attributes:
      spec: of the backbone; its width is that of the features.
      encode: a batch of windows to a vector per clip [b, width] or per token
        [b, t, width].
      batch_windows: of `encode`.
      rows_of: the windows of a video, and the places of their vectors.
      facts: for the record.
    """

    spec: BackboneSpec
    encode: Callable[[Inputs], jax.Array]
    batch_windows: int
    rows_of: Callable[[Video], Rows]
    facts: dict[str, Any]


def clip_extractor(config: Any, mesh: Mesh, *, stride_frames: int,
                   is_resampled: bool, normalization: str) -> Extractor:
    """Returns an extractor of one vector per clip, by the backbone alone.

    Args:
      stride_frames: from one clip to the next.
      is_resampled: whether these are not the frames of the file.
      normalization: of pixels, "imagenet" or "zero_one" (divided by 255).

    Raises:
      InputError: a key that does not fit the backbone.
    """
    spec, flat, info = specs.configured_backbone(config)
    if not spec.clip_pooling:
        raise InputError(
            f"{config.backbone.checkpoint}: a {family_of(spec)} backbone "
            "gives no vector for a clip: set --features=last")
    dtype = specs.compute_dtype(config.backbone.dtype)
    frozen = sharding.read_onto_mesh(nest(flat), mesh, frozen_dtype(dtype))
    template = backbone_template(spec)
    pixels = _pixel_facts(spec)
    if normalization == "zero_one":
        pixels = {"normalization": "pixel / 255"}

    def encode(frozen, batch):
        clips = batch["frames"]
        if normalization == "zero_one":
            # Cancels the backbone's own normalization.
            clips = (clips.astype(jnp.float32) / 255
                     * jnp.asarray(spec.pixel_std)
                     + jnp.asarray(spec.pixel_mean))
        return template.bind(frozen).mean_features(clips, dtype)

    reader, clip = readers.FrameReader(config), spec.clip_frames

    def rows_of(video):
        return Rows(
            sampling.num_clips(video.grid.num_samples, clip, stride_frames),
            functools.partial(reader.clips, video, clip, stride_frames),
            lambda window, vector: (window.first_sample // stride_frames,
                                    vector))

    a_device = config.backbone.chunk_clips or CLIPS_A_DEVICE
    encode_batch = on_mesh(encode, mesh, frozen)
    return Extractor(spec, encode_batch, a_device * mesh.size, rows_of, {
        "stride_frames": stride_frames, "clip_frames": clip,
        "clock": "resampled" if is_resampled else "frames of the file",
        "pooling": spec.clip_pooling, "pixels": pixels,
        "backbone": {"fingerprint": info.fingerprint, "source": info.source,
                     "dtype": config.backbone.dtype}})


def token_extractor(config: Any, mesh: Mesh, run: Run | None) -> Extractor:
    """Returns an extractor of one vector per token of the config's windows.

    It is the input of the run's head, standardized and with adapters, or
    without a run `last` of the backbone's features.
    """
    dtype = config.backbone.dtype
    arrays: tuple[Any, ...]
    if run is not None:
        model, state = run.model, run.state
        assert model.spec is not None  # files of features were refused
        spec, encode = model.spec, model.encode
        arrays = state.ema, state.statistics, model.frozen
        facts = {"pooling": f"{spec.last_pooling}; standardized, adapters "
                            "added",
                 "backbone": {"fingerprint": model.fingerprint,
                              "dtype": dtype},
                 "run": {"kind": config.adapter.kind, "step": int(state.step),
                         "fingerprint": _fingerprint(state.ema)}}
    else:
        spec, flat, info = specs.configured_backbone(config)
        specs.check_window(config, spec)
        frozen, encode = frozen_encoder(config, spec, flat, (), mesh)
        arrays = {}, None, frozen
        facts = {"pooling": spec.last_pooling,
                 "backbone": {"fingerprint": info.fingerprint,
                              "source": info.source, "dtype": dtype}}

    def encode_tokens(parameters, statistics, frozen, batch):
        valid = batch["valid_samples"]
        features = encode(frozen, parameters, {"frames": batch["frames"]},
                          valid, None)
        if run is None:
            return rearrange(features.last, "b n u c -> b (n u) c")
        detector = run.model.detector.bind(parameters)
        return detector.fused(features, statistics, valid)[0]

    # Windows start at whole clips, so that their tokens share one grid.
    window, align = config.window, config.window.clip_samples
    step = sampling.window_step(window.samples, window.overlap, align)
    if window.clip_overlap:
        facts["clip_overlap"] = window.clip_overlap
    reader = readers.FrameReader(config)

    def rows_of(video):
        places = sampling.test_windows(video.grid, window.samples,
                                       window.overlap, align=align)
        number_of = {place.first_sample: number
                     for number, place in enumerate(places)}
        owner = sampling.token_windows(places, video.grid.num_samples,
                                       spec.tubelet)

        def windows(decoder_threads):
            return stream.sliding_windows(
                reader.test_samples(video, decoder_threads), window.samples,
                step, align)

        def place(at, vectors):
            rows = np.flatnonzero(owner == number_of[at.first_sample])
            return rows, vectors[rows - at.first_sample // spec.tubelet]

        return Rows(len(owner), windows, place)

    # Without a fixed stride the clock counts samples, `tubelet` to a token.
    by_stride = window.sampling == "stride"
    stride = spec.tubelet * (window.frame_stride if by_stride else 1)
    batch = -(-config.evaluate.batch_windows // mesh.size) * mesh.size
    encode_batch = on_mesh(encode_tokens, mesh, *arrays)
    return Extractor(spec, encode_batch, batch, rows_of, {
        "stride_frames": stride, "clip_frames": stride,
        "clock": "frames of the file" if by_stride else "samples",
        **facts, "pixels": _pixel_facts(spec)})


def on_mesh(encode: Callable[..., Any], mesh: Mesh, *arrays: Any
            ) -> Callable[[Inputs], Any]:
    """Jits a function of (*arrays, batch) to one of a batch on the host."""
    jitted = jax.jit(encode, compiler_options=compiler_options(mesh))

    def encode_batch(inputs):
        return jitted(*arrays, sharding.put(
            inputs, sharding.batch_shardings(inputs, mesh)))

    return encode_batch


def _pixel_facts(spec: BackboneSpec) -> dict[str, Any]:
    return {"normalization": "(pixel - mean) / std",
            "mean": list(spec.pixel_mean), "std": list(spec.pixel_std)}


def _fingerprint(tree: Tree) -> str:
    """Returns the hexadecimal SHA-256 of a tree's names and values."""
    digest = hashlib.sha256()
    for name, leaf in sorted(flatten(tree).items()):
        array = np.ascontiguousarray(jax.device_get(leaf))
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
