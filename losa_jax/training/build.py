"""From a config to modules, points and the encode function.

The one place that knows which config key goes into which constructor.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from losa_jax import timeline
from losa_jax.detection.targets import Points, level_points
from losa_jax.distributed import sharding
from losa_jax.errors import InputError
from losa_jax.models.adapters import inside_backbone, losa
from losa_jax.models.adapters.ladder import LadderSpec
from losa_jax.models.backbones import family_of
from losa_jax.models.backbones.base import BackboneSpec
from losa_jax.models.backbones.sizes import (
    backbone_size,
    requested_family,
    requested_spec,
)
from losa_jax.models.detector import HEADS, Detector
from losa_jax.models.heads.layers import HeadSpec
from losa_jax.models.heads.tridet import NUM_GROUPS
from losa_jax.models.ops.params import (
    Template,
    Tree,
    flatten,
    nest,
    parameters,
)
from losa_jax.training.encoder import (
    Encode,
    feature_encoder,
    frozen_encoder,
    tap_grid,
    tuned_encoder,
)
from losa_jax.training.step import (
    EmaSettings,
    LossSettings,
    make_candidates_step,
    make_train_step,
)
from losa_jax.utils.xla_options import compiler_options
from losa_jax.weights.backbones import BackboneInfo, open_backbone
from losa_jax.weights.heads import load_head
from losa_jax.weights.table import expected_shapes

KINDS = ("none", "losa", "ladder", *inside_backbone.KINDS)
RESAMPLES = ("linear", "area")
# Beyond any window: the last level's regression range is open.
OPEN_RANGE = 10000.0


@dataclasses.dataclass(frozen=True)
class Model:
    """Everything about the network that training and evaluation share.

    Attributes:
      width: channels of the features.
      tubelet: samples that one of the encoder's tokens stands for.
      spec: of the backbone; None where features come from files.
      frozen: its parameters without gradient, on the mesh.
      fingerprint: of its weights, to tell whether a checkpoint fits.
      detector: template of adapters beside the backbone, fusion and head.
      trained: its fresh parameters, on the mesh, and under "backbone" those
        of the backbone that are trained.
      encode: windows to features, traceable.
      points_of: samples of a window to the points of the head's pyramid.
      tap_layers: blocks that the adapters read.
    """

    width: int
    tubelet: int
    spec: BackboneSpec | None
    frozen: Tree
    fingerprint: str
    detector: Template
    trained: Tree
    encode: Encode
    points_of: Callable[[int], Points]
    tap_layers: tuple[int, ...]


def build_model(config: Any, num_classes: int, mesh: Mesh) -> Model:
    """Loads the frozen backbone, makes the trained part.

    Raises:
      InputError: a key that does not fit the backbone, or a backbone that
        is missing or does not fit its own description.
    """
    if config.features.folder:
        return _assemble(config, None, {}, "features", num_classes, mesh,
                         abstract=False)
    spec, flat, info = configured_backbone(config)
    return _assemble(config, spec, flat, info.fingerprint, num_classes, mesh,
                     abstract=False)


def describe_model(config: Any, num_classes: int, mesh: Mesh) -> Model:
    """The same from config.backbone.name or its sizes, without a checkpoint.

    `frozen` and `trained` have `jax.ShapeDtypeStruct` leaves: enough to
    compile for any devices, nothing is allocated.
    """
    size = config.augment.size
    spec = requested_spec(backbone_request(config.backbone),
                          clip_frames=config.window.clip_frames,
                          image_size=(size, size))
    # Views of one zero: they can be cut like real arrays.
    flat = {name: np.broadcast_to(np.zeros((), np.float32), shape)
            for name, shape in expected_shapes(spec).items()}
    return _assemble(config, spec, flat, "", num_classes, mesh, abstract=True)


def _assemble(config: Any, spec: BackboneSpec | None, flat: dict[str, Any],
              fingerprint: str, num_classes: int, mesh: Mesh, *,
              abstract: bool) -> Model:
    check_window(config, spec)
    tap_layers: tuple[int, ...] = ()
    adapter = None
    if spec is not None:
        tap_layers = choose_tap_layers(config.adapter, spec.depth)
        adapter = adapter_spec(config, spec, tap_layers)
    width = config.features.width if spec is None else spec.width
    tubelet = 1 if spec is None else spec.tubelet
    samples_per_token = config.window.frames / config.window.tokens
    head = dataclasses.replace(
        head_spec(config.head, width, num_classes, config.window.tokens),
        # Beside a backbone that runs, the time is small and the memory is
        # not; from its stored features the head is all there is.
        recompute=spec is not None and not config.data.cache)

    def build() -> Detector:
        return Detector(
            adapter, head, samples_per_token=samples_per_token,
            tubelet=tubelet, resample=config.window.resample,
            rngs=nnx.Rngs(config.seed))

    trained = sharding.make_on_mesh(lambda: parameters(build()), mesh,
                                    abstract=abstract)
    if spec is None:
        encoder = feature_encoder()
    elif config.adapter.kind in inside_backbone.KINDS:
        encoder = tuned_encoder(config, spec, flat, mesh, abstract=abstract)
        trained["backbone"] = encoder.trained
    else:
        encoder = frozen_encoder(
            config, spec, flat, tap_layers if adapter else (), mesh,
            abstract=abstract)

    if config.head.checkpoint and not abstract:
        trained["head"] = _imported_head(config.head, trained["head"], mesh)

    def points_of(num_samples: int) -> Points:
        return level_points(round(num_samples / samples_per_token),
                            head.strides, regression_ranges(config.head))

    return Model(width, tubelet, spec, encoder.frozen, fingerprint,
                 Template(build), trained, encoder.encode, points_of,
                 tap_layers)


def _imported_head(head: Any, fresh: Tree, mesh: Mesh) -> Tree:
    """A converted head in place of a fresh one.

    Raises:
      InputError: it has other parameters than the config's head.
    """
    flat, facts = load_head(head.checkpoint)
    wanted = {name: leaf.shape for name, leaf in flatten(fresh).items()}
    found = {name: array.shape for name, array in flat.items()}
    wrong = [f"{name}: {found.get(name, 'missing')}, the config's is "
             f"{wanted.get(name, 'missing')}"
             for name in sorted(set(wanted) | set(found))
             if found.get(name) != wanted.get(name)]
    if wrong:
        raise InputError(
            f"config.head.checkpoint={head.checkpoint} does not fit the "
            f"config's head in {len(wanted)} parameters:\n  "
            + "\n  ".join(wrong[:8]) + f"\nIt is {facts['settings']}")
    tree = nest(flat)
    return sharding.put(tree, jax.tree.map(
        lambda leaf: sharding.replicated(mesh), tree))


def build_train_step(config: Any, model: Model,
                     optimizer: optax.GradientTransformation,
                     num_classes: int) -> Callable[..., Any]:
    """`make_train_step` with the settings of a config."""
    loss = config.loss
    return make_train_step(
        model.encode, model.detector, optimizer,
        model.points_of(config.window.frames),
        LossSettings(num_classes, loss.center_radius, loss.label_smoothing,
                     loss.regression_weight, loss.normalizer_momentum,
                     loss.iou_power),
        EmaSettings(config.train.ema_decay, config.train.ema_warmup))


def jit_train_step(config: Any, model: Model,
                   optimizer: optax.GradientTransformation, num_classes: int,
                   state: Any, mesh: Mesh) -> Any:
    """`build_train_step` compiled as a run uses it.

    Args:
      state: the run's, or its description: it tells where arrays lie.
      mesh: of real devices or of a topology description.
    """
    return jax.jit(
        build_train_step(config, model, optimizer, num_classes),
        # The new state takes the old one's room.
        donate_argnums=0,
        # As the state comes in: else the second step is compiled anew.
        out_shardings=(sharding.of_leaves(state), sharding.replicated(mesh)),
        compiler_options=compiler_options(mesh))


def jit_candidates_step(config: Any, model: Model, mesh: Mesh) -> Any:
    """`make_candidates_step` compiled as evaluation and prediction use it:
    (parameters, statistics, frozen, batch) to the best candidates."""
    return jax.jit(
        make_candidates_step(model.encode, model.detector, model.points_of,
                             model.tubelet, config.evaluate),
        out_shardings=sharding.replicated(mesh),
        compiler_options=compiler_options(mesh))


def backbone_request(backbone: Any) -> dict[str, Any]:
    """The name and sizes that the config asks of a backbone."""
    return {key: backbone[key] for key in (
        "name", "width", "depth", "heads", "mlp_width", "patch")}


def configured_backbone(config: Any) -> tuple[
        BackboneSpec, dict[str, np.ndarray], BackboneInfo]:
    """Returns `open_backbone` of config.backbone, checked.

    A backbone that takes clips of any length has config.window.clip_frames.

    Raises:
      InputError: a key that does not fit the backbone, or no such backbone.
    """
    spec, flat, info = open_backbone(Path(config.backbone.checkpoint))
    check_backbone(config.backbone, spec)
    if not spec.has_fixed_frames:
        clip_frames = config.window.clip_frames
        try:
            spec = dataclasses.replace(spec, clip_frames=clip_frames)
        except InputError as error:
            raise InputError(f"config.window.clip_frames={clip_frames} does "
                             f"not fit the backbone: {error}") from error
    return spec, flat, info


def check_backbone(backbone: Any, spec: BackboneSpec) -> None:
    """Refuses a checkpoint of another size than the config names."""
    asked = backbone_request(backbone)
    wanted = {key: value for key, value in asked.items()
              if value and key != "name"}
    if asked["name"]:
        wanted = backbone_size(**asked)
        family = requested_family(asked["name"])
        if family != family_of(spec):
            raise InputError(
                f"config.backbone.name={asked['name']} is of {family}, but "
                f"the backbone in {backbone.checkpoint} is of "
                f"{family_of(spec)}: give another of the two")
    for key, value in wanted.items():
        actual = getattr(spec, key, None)
        if actual != value:
            raise InputError(
                f"config.backbone asks for {key}={value} ("
                f"{asked['name'] or 'without a name'}), but the backbone in "
                f"{backbone.checkpoint} has {key}={actual}: give "
                "another --config.backbone.checkpoint, or --config.backbone."
                f"{'name' if asked['name'] else key} as it is")


def check_window(config: Any, spec: BackboneSpec | None) -> None:
    """Window, clip, pyramid and picture sizes that do not fit are refused."""
    window = config.window
    if spec is not None and window.clip_frames != spec.clip_frames:
        raise InputError(
            f"config.window.clip_frames={window.clip_frames}, but the "
            f"backbone {config.backbone.checkpoint} reads clips of "
            f"{spec.clip_frames} frames: set it to that")
    timeline.clip_edges(window.frames, window.clip_frames)
    if window.resample not in RESAMPLES:
        raise InputError(f"config.window.resample={window.resample!r}: "
                         f"choose one of {', '.join(RESAMPLES)}")
    stride = 2 ** (config.head.num_levels - 1)
    if window.tokens % stride:
        raise InputError(
            f"config.window.tokens={window.tokens} is no multiple of "
            f"{stride}, the stride of the last of "
            f"config.head.num_levels={config.head.num_levels} levels: take "
            f"{-(-window.tokens // stride) * stride}")
    if spec is not None and config.augment.size < spec.patch:
        raise InputError(f"config.augment.size={config.augment.size} pixels "
                         f"is below the backbone's patch of {spec.patch}: "
                         "give that or more")


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
                         f"the backbone has {half} blocks: give at most that")
    return tuple(depth - 1 - round((count - 1 - i) * half / count)
                 for i in range(count))


def adapter_spec(config: Any, spec: BackboneSpec, tap_layers: tuple[int, ...]
                 ) -> losa.LosaSpec | LadderSpec | None:
    """Sizes of the adapters beside the backbone; None without them."""
    adapter = config.adapter
    for key, value, known in (
            ("kind", adapter.kind, KINDS),
            ("ranges", adapter.ranges, losa.RANGES),
            ("gates", adapter.gates, losa.GATES),
            ("long_mixer", adapter.long_mixer, losa.LONG_MIXERS),
            ("short_pool", adapter.short_pool, losa.SHORT_POOLS)):
        if value not in known:
            raise InputError(f"config.adapter.{key}={value!r}: choose one of "
                             f"{', '.join(known)}")
    if adapter.kind in ("none", *inside_backbone.KINDS):
        return None
    if adapter.kind == "ladder":
        return LadderSpec(
            in_width=spec.width, width=adapter.width or spec.width // 4,
            num_taps=len(tap_layers), kernel=adapter.long_kernel)
    # Multiples of 32 let up to 32 devices share a large backbone's adapters
    # (sharding.parameter_shardings): 232 of ViT-g would stay whole on each.
    unit = 32 if spec.width >= 384 else 8
    width = adapter.width or max(8, round(spec.width / 6 / unit) * unit)
    if width % adapter.attention_heads:
        raise InputError(
            f"config.adapter.width={width} does not divide by "
            f"config.adapter.attention_heads={adapter.attention_heads}")
    if adapter.long_mixer == "attention" and (
            width % (2 * adapter.attention_heads)
            or adapter.long_key_pool < 1):
        raise InputError(
            f"config.adapter.long_mixer=attention: config.adapter.width="
            f"{width} must divide by 2 x attention_heads="
            f"{adapter.attention_heads} (rotary positions turn pairs), and "
            f"long_key_pool={adapter.long_key_pool} be 1 or more")
    patches = config.augment.size // spec.patch
    grid = tap_grid(config, spec) or (patches, patches)
    return losa.LosaSpec(
        in_width=spec.width, width=width, num_taps=len(tap_layers),
        clip_tokens=spec.clip_tokens, tap_grid=grid,
        short_grid=adapter.short_grid, ranges=adapter.ranges,
        gates=adapter.gates, long_kernel=adapter.long_kernel,
        long_mixer=adapter.long_mixer, long_key_pool=adapter.long_key_pool,
        attention_heads=adapter.attention_heads,
        mlp_ratio=adapter.mlp_ratio, tap_residual=adapter.tap_residual,
        short_pool=adapter.short_pool)


def head_spec(head: Any, in_width: int, num_classes: int,
              window_tokens: int) -> HeadSpec:
    """Sizes of the head: the section `head` is a HeadSpec's fields, but for
    those that the rest of the config decides."""
    for key, known in (("kind", HEADS), ("neck", ("identity", "fpn")),
                       ("downsample", ("max", "avg"))):
        if head[key] not in known:
            raise InputError(f"config.head.{key}={head[key]!r}: choose one "
                             f"of {', '.join(known)}")
    for key in ("attention_window", "sgp_window"):
        if len(tuple(head[key])) not in (1, head.num_levels):
            raise InputError(
                f"config.head.{key}={tuple(head[key])}: give one number, or "
                f"one for each of the {head.num_levels} levels")
    if head.kind == "actionformer" and head.width % head.attention_heads:
        raise InputError(
            f"config.head.width={head.width} does not divide by "
            f"config.head.attention_heads={head.attention_heads}")
    if head.kind == "tridet" and head.width % NUM_GROUPS:
        raise InputError(f"config.head.width={head.width} does not divide "
                         f"into the {NUM_GROUPS} groups of TriDet's norm")
    names = {field.name for field in dataclasses.fields(HeadSpec)}
    settings: dict[str, Any] = {
        key: tuple(value) if isinstance(value, (tuple, list)) else value
        for key, value in head.items() if key in names}
    return HeadSpec(in_width=in_width, num_classes=num_classes,
                    max_tokens=window_tokens, **settings)


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
