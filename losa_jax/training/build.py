"""From a config to modules, points and the encode function.

The one place that knows which config key goes into which constructor.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from losa_jax import timeline
from losa_jax.detection.targets import Points, level_points
from losa_jax.errors import InputError
from losa_jax.models import losa
from losa_jax.models.actionformer import HeadSpec
from losa_jax.models.detector import Detector, encode_windows
from losa_jax.models.tree import Template, Tree, nest, parameters
from losa_jax.models.vit import VisionTransformer, VitSpec
from losa_jax.models.vit_sizes import backbone_size
from losa_jax.models.weights import load_backbone
from losa_jax.training import sharding
from losa_jax.training.step import Encode

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# Beyond any window: the last level's regression range is open.
OPEN_RANGE = 10000.0


@dataclasses.dataclass(frozen=True)
class Model:
    """Everything about the network that training and evaluation share.

    Attributes:
      spec: of the backbone.
      frozen: its parameters, on the mesh.
      fingerprint: of its weights, to tell whether a checkpoint fits.
      detector: template of the trained module.
      trained: its fresh parameters, on the mesh.
      encode: (frozen, frames) to window features, traceable.
      points: of the head's pyramid.
      tap_layers: blocks that the adapters read.
    """

    spec: VitSpec
    frozen: Tree
    fingerprint: str
    detector: Template
    trained: Tree
    encode: Encode
    points: Points
    tap_layers: tuple[int, ...]


def build_model(config: Any, num_classes: int, mesh: Mesh) -> Model:
    """Loads the frozen backbone, makes the trained part.

    Raises:
      InputError: a key that does not fit the backbone, or a backbone that
        is missing or does not fit its own description.
    """
    directory = Path(config.backbone.checkpoint)
    dtype = compute_dtype(config.backbone.dtype)
    spec, flat, info = load_backbone(directory)
    check_backbone(config.backbone, spec)
    check_window(config, spec)
    template = Template(lambda: VisionTransformer(spec, rngs=nnx.Rngs(0)))
    # Norms and biases stay float32: they are small, and statistics need it.
    frozen = nest(flat)
    frozen = sharding.read_onto_mesh(
        frozen, sharding.parameter_shardings(frozen, mesh),
        lambda leaf: dtype if leaf.ndim > 2 else jnp.float32)

    tap_layers = choose_tap_layers(config.adapter, spec.depth)
    tap_grid = tuple(config.adapter.tap_grid) or None
    adapter = adapter_spec(config, spec, tap_layers)
    head = head_spec(config.head, spec.width, num_classes,
                     config.window.tokens)

    def build() -> Detector:
        return Detector(
            adapter, head, window_tokens=config.window.tokens,
            samples_per_token=config.window.frames / config.window.tokens,
            tubelet=spec.tubelet, rngs=nnx.Rngs(config.seed))

    # Jitted, so that a thousand small arrays are made in one program.
    trained = jax.jit(lambda: parameters(build()))()
    trained = sharding.put(trained,
                           sharding.parameter_shardings(trained, mesh))
    shards = mesh.shape["data"] * mesh.shape["clip"]

    def encode(frozen: Tree, frames: jax.Array):
        return encode_windows(
            template.bind(frozen), frames,
            tap_layers=tap_layers if adapter is not None else (),
            tap_grid=tap_grid, chunk_clips=config.backbone.chunk_clips,
            dtype=dtype, shards=shards,
            clip_sharding=sharding.clip_chunk_sharding(mesh))

    points = level_points(config.window.tokens, head.strides,
                          regression_ranges(config.head))
    return Model(spec, frozen, info.fingerprint, Template(build), trained,
                 encode, points, tap_layers)


def compute_dtype(name: str) -> jnp.dtype:
    """The dtype that config.backbone.dtype names."""
    if name not in DTYPES:
        raise InputError(f"config.backbone.dtype={name!r}: choose one of "
                         f"{', '.join(DTYPES)}")
    return DTYPES[name]


def backbone_request(backbone: Any) -> dict[str, Any]:
    """The name and sizes that the config asks of a backbone."""
    return {key: backbone[key] for key in (
        "name", "width", "depth", "heads", "mlp_width", "patch")}


def check_backbone(backbone: Any, spec: VitSpec) -> None:
    """A checkpoint of another size than the config names is refused."""
    asked = backbone_request(backbone)
    wanted = {key: value for key, value in asked.items()
              if value and key != "name"}
    if asked["name"]:
        wanted = backbone_size(**asked)
    for key, value in wanted.items():
        if getattr(spec, key) != value:
            raise InputError(
                f"config.backbone asks for {key}={value} ("
                f"{asked['name'] or 'without a name'}), but the backbone in "
                f"{backbone.checkpoint} has {key}={getattr(spec, key)}: give "
                "another --config.backbone.checkpoint, or --config.backbone."
                f"{'name' if asked['name'] else key} as it is")


def check_window(config: Any, spec: VitSpec) -> None:
    """Window, clip, pyramid and picture sizes that do not fit are refused."""
    window = config.window
    if window.clip_frames != spec.clip_frames:
        raise InputError(
            f"config.window.clip_frames={window.clip_frames}, but the "
            f"backbone {config.backbone.checkpoint} reads clips of "
            f"{spec.clip_frames} frames")
    timeline.clip_edges(window.frames, window.clip_frames)
    stride = 2 ** (config.head.num_levels - 1)
    if window.tokens % stride:
        raise InputError(
            f"config.window.tokens={window.tokens} is no multiple of "
            f"{stride}, the stride of the last of "
            f"config.head.num_levels={config.head.num_levels} levels")
    if config.augment.size < spec.patch:
        raise InputError(f"config.augment.size={config.augment.size} pixels "
                         f"is below the backbone's patch of {spec.patch}")


def choose_tap_layers(adapter: Any, depth: int) -> tuple[int, ...]:
    """Blocks that the adapters read, ascending.

    Explicit `tap_layers`, or `num_taps` evenly spaced blocks of the last
    half that end with the last block (0: every block of the last half).
    """
    layers = tuple(adapter.tap_layers)
    if layers:
        if list(layers) != sorted(set(layers)) or not (
                0 <= layers[0] and layers[-1] < depth):
            raise InputError(
                f"config.adapter.tap_layers={layers}: must ascend and lie "
                f"within 0 .. {depth - 1}, the backbone's blocks")
        return layers
    half = depth // 2
    count = adapter.num_taps or half
    if not 1 <= count <= half:
        raise InputError(f"config.adapter.num_taps={count}: the last half of "
                         f"the backbone has {half} blocks")
    return tuple(depth - 1 - round((count - 1 - i) * half / count)
                 for i in range(count))


def adapter_spec(config: Any, spec: VitSpec, tap_layers: tuple[int, ...]
                 ) -> losa.LosaSpec | None:
    """Sizes of the adapters; None for adapter.kind="none"."""
    adapter = config.adapter
    for key, value, known in (
            ("kind", adapter.kind, ("none", "losa")),
            ("ranges", adapter.ranges, losa.RANGES),
            ("gates", adapter.gates, losa.GATES),
            ("short_pool", adapter.short_pool, losa.SHORT_POOLS)):
        if value not in known:
            raise InputError(f"config.adapter.{key}={value!r}: choose one of "
                             f"{', '.join(known)}")
    if adapter.kind == "none":
        return None
    width = adapter.width or max(8, round(spec.width / 6 / 8) * 8)
    if width % adapter.attention_heads:
        raise InputError(
            f"config.adapter.width={width} does not divide by "
            f"config.adapter.attention_heads={adapter.attention_heads}")
    patches = config.augment.size // spec.patch
    grid = tuple(adapter.tap_grid) or (patches, patches)
    if max(grid) > patches:
        raise InputError(f"config.adapter.tap_grid={grid}: the backbone has "
                         f"{patches} x {patches} patches at "
                         f"{config.augment.size} pixels")
    return losa.LosaSpec(
        in_width=spec.width, width=width, num_taps=len(tap_layers),
        clip_tokens=spec.clip_tokens, tap_grid=grid,
        short_grid=adapter.short_grid, ranges=adapter.ranges,
        gates=adapter.gates, long_kernel=adapter.long_kernel,
        attention_heads=adapter.attention_heads,
        mlp_ratio=adapter.mlp_ratio, tap_residual=adapter.tap_residual,
        short_pool=adapter.short_pool)


def head_spec(head: Any, in_width: int, num_classes: int,
              window_tokens: int) -> HeadSpec:
    """Sizes of the head."""
    windows = tuple(head.attention_window)
    if len(windows) not in (1, head.num_levels):
        raise InputError(
            f"config.head.attention_window={windows}: give one number, or "
            f"one for each of the {head.num_levels} levels")
    if head.width % head.attention_heads:
        raise InputError(
            f"config.head.width={head.width} does not divide by "
            f"config.head.attention_heads={head.attention_heads}")
    return HeadSpec(
        in_width=in_width, num_classes=num_classes, width=head.width,
        num_levels=head.num_levels,
        num_embedding_convs=head.num_embedding_convs,
        num_stem_blocks=head.num_stem_blocks,
        attention_heads=head.attention_heads, attention_window=windows,
        head_layers=head.head_layers,
        prior_probability=head.prior_probability,
        absolute_positions=head.absolute_positions,
        max_tokens=window_tokens, drop_path=head.drop_path,
        dropout=head.dropout)


def regression_ranges(head: Any) -> tuple[tuple[float, float], ...]:
    """(from, to) distances in tokens of each level, as ActionFormer's."""
    edges = tuple(head.regression_edges) or tuple(
        4.0 * 2 ** i for i in range(head.num_levels - 1))
    if len(edges) != head.num_levels - 1 or list(edges) != sorted(edges):
        raise InputError(
            f"config.head.regression_edges={edges}: needs "
            f"{head.num_levels - 1} ascending numbers, one fewer than levels")
    bounds = (0.0, *map(float, edges), OPEN_RANGE)
    return tuple(zip(bounds[:-1], bounds[1:], strict=True))


def build_mesh(config: Any) -> Mesh:
    """The mesh over all devices that the config asks for."""
    window_clips = len(timeline.clip_edges(config.window.frames,
                                           config.window.clip_frames))
    batch = math.gcd(config.train.batch_windows,
                     config.evaluate.batch_windows)
    return sharding.make_mesh(sharding.mesh_shape(
        jax.device_count(), batch, window_clips, data=config.mesh.data,
        clip=config.mesh.clip, fsdp=config.mesh.fsdp))
