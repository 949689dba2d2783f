"""Makes the network of a config: specs, modules, jitted steps.

`encoder` does the part of the backbone; `restore` makes the optimizer.
"""

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from losa_jax import timeline
from losa_jax.detection.decode import DecodeSettings
from losa_jax.distributed import sharding
from losa_jax.errors import InputError, fields_as_keys
from losa_jax.models.adapters import ADAPTERS, inside_backbone
from losa_jax.models.backbones import BACKBONES, family_of
from losa_jax.models.backbones.base import BackboneSpec
from losa_jax.models.backbones.sizes import (
    backbone_size,
    requested_family,
    requested_spec,
)
from losa_jax.models.detector import Detector
from losa_jax.models.heads import HEADS
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
    inside_backbone_encoder,
    tap_grid,
)
from losa_jax.training.step import (
    EmaSettings,
    make_predict_step,
    make_train_step,
)
from losa_jax.utils.xla_options import compiler_options
from losa_jax.weights.backbone_folder import BackboneInfo, open_backbone
from losa_jax.weights.head_folder import load_head
from losa_jax.weights.name_table import expected_shapes

RESAMPLES = ("linear", "area")


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
    with backbone_keys(config):
        spec = requested_spec(backbone_request(config.backbone),
                              clip_frames=config.window.clip_samples,
                              image_size=(size, size))
    # Views of one zero: they can be cut like real arrays.
    flat = {name: np.broadcast_to(np.zeros((), np.float32), shape)
            for name, shape in expected_shapes(spec).items()}
    return _assemble(config, spec, flat, "", num_classes, mesh, abstract=True)


def backbone_keys(config: Any) -> contextlib.AbstractContextManager[None]:
    """Errors of a backbone's spec name the keys of the config."""
    family = BACKBONES[requested_family(config.backbone.name)]
    return fields_as_keys(family.spec, "config.backbone",
                          clip_frames="config.window.clip_samples",
                          image_size="config.augment.size")


def _assemble(config: Any, spec: BackboneSpec | None, flat: dict[str, Any],
              fingerprint: str, num_classes: int, mesh: Mesh, *,
              abstract: bool) -> Model:
    check_window(config, spec)
    tap_layers: tuple[int, ...] = ()
    adapter_spec = None
    if spec is not None:
        check_adapter_type(config.adapter)
        tap_layers = choose_tap_layers(config.adapter, spec.depth)
        adapter_spec = make_adapter_spec(config, spec, tap_layers)
    width = config.features.width if spec is None else spec.width
    tubelet = 1 if spec is None else spec.tubelet
    samples_per_token = config.window.samples / config.window.tokens
    head_spec = make_head_spec(
        config, in_width=width, num_classes=num_classes,
        # Beside a backbone that runs, the time is small and the memory is
        # not; from its stored features the head is all there is.
        remat=spec is not None and not config.data.cache)
    check_tokens(config, head_spec)

    def build() -> Detector:
        rngs = nnx.Rngs(config.seed)
        adapter = None if adapter_spec is None else (
            ADAPTERS[config.adapter.kind].module(adapter_spec, rngs=rngs))
        head = HEADS[config.head.kind].module(head_spec, rngs=rngs)
        return Detector(adapter, head, samples_per_token=samples_per_token,
                        tubelet=tubelet, resample=config.window.resample)

    trained = sharding.make_on_mesh(lambda: parameters(build()), mesh,
                                    abstract=abstract)
    if spec is None:
        encoder = feature_encoder()
    elif config.adapter.kind in inside_backbone.ADAPTER_TYPES:
        encoder = inside_backbone_encoder(config, spec, flat, mesh,
                                          abstract=abstract)
        trained["backbone"] = encoder.trained
    else:
        encoder = frozen_encoder(
            config, spec, flat, tap_layers if adapter_spec else (), mesh,
            abstract=abstract)

    if config.head.checkpoint and not abstract:
        trained["head"] = _imported_head(config.head, trained["head"], mesh)

    return Model(width, tubelet, spec, encoder.frozen, fingerprint,
                 Template(build), trained, encoder.encode, tap_layers)


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


def jit_train_step(config: Any, model: Model,
                   optimizer: optax.GradientTransformation, state: Any,
                   mesh: Mesh) -> Any:
    """`make_train_step` compiled as a run uses it.

    Args:
      state: the run's, or its description: it tells where arrays lie.
      mesh: of real devices or of a topology description.
    """
    settings = EmaSettings(config.train.ema_decay, config.train.ema_warmup)
    return jax.jit(
        make_train_step(model.encode, model.detector, optimizer, settings),
        # The new state takes the old one's memory.
        donate_argnums=0,
        # As the state comes in: else the second step is compiled anew.
        out_shardings=(sharding.of_leaves(state), sharding.replicated(mesh)),
        compiler_options=compiler_options(mesh))


def jit_predict_step(config: Any, model: Model, mesh: Mesh) -> Any:
    """`make_predict_step` compiled as evaluation and prediction use it:
    (parameters, statistics, frozen, batch) to segments."""
    return jax.jit(
        make_predict_step(model.encode, model.detector,
                          decode_settings(config.evaluate)),
        out_shardings=sharding.replicated(mesh),
        compiler_options=compiler_options(mesh))


def decode_settings(evaluate: Any) -> DecodeSettings:
    """Those of the config section `evaluate`."""
    with fields_as_keys(DecodeSettings, "config.evaluate"):
        return _from_sections(DecodeSettings, evaluate)


def backbone_request(backbone: Any) -> dict[str, Any]:
    """The name and sizes that the config asks of a backbone."""
    return {key: backbone[key] for key in (
        "name", "width", "depth", "heads", "mlp_width", "patch")}


def configured_backbone(config: Any) -> tuple[
        BackboneSpec, dict[str, np.ndarray], BackboneInfo]:
    """Returns `open_backbone` of config.backbone, checked.

    A backbone that takes clips of any length has config.window.clip_samples.

    Raises:
      InputError: a key that does not fit the backbone, or no such backbone.
    """
    spec, flat, info = open_backbone(Path(config.backbone.checkpoint))
    check_backbone(config.backbone, spec)
    if not spec.has_fixed_frames:
        clip_frames = config.window.clip_samples
        try:
            spec = dataclasses.replace(spec, clip_frames=clip_frames)
        except InputError as error:
            raise InputError(f"config.window.clip_samples={clip_frames} does "
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
    """Window, clip and picture sizes that do not fit are refused."""
    window = config.window
    if spec is not None and window.clip_samples != spec.clip_frames:
        raise InputError(
            f"config.window.clip_samples={window.clip_samples}, but the "
            f"backbone {config.backbone.checkpoint} reads clips of "
            f"{spec.clip_frames} frames: set it to that")
    timeline.clip_edges(window.samples, window.clip_samples)
    if window.resample not in RESAMPLES:
        raise InputError(f"config.window.resample={window.resample!r}: "
                         f"choose one of {', '.join(RESAMPLES)}")
    if spec is not None and config.augment.size < spec.patch:
        raise InputError(f"config.augment.size={config.augment.size} pixels "
                         f"is below the backbone's patch of {spec.patch}: "
                         "give that or more")


def check_tokens(config: Any, head_spec: Any) -> None:
    """Refuses windows that the head's levels do not divide."""
    tokens = config.window.tokens
    multiple = getattr(head_spec, "token_multiple", 1)
    if tokens % multiple:
        raise InputError(
            f"config.window.tokens={tokens} is no multiple of {multiple}, the "
            "stride of the last of config.head.num_levels="
            f"{config.head.num_levels} levels: take "
            f"{-(-tokens // multiple) * multiple}")


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


def check_adapter_type(adapter: Any) -> None:
    """Refuses a config.adapter.kind that nothing is known of."""
    known = ("none", *ADAPTERS, *inside_backbone.ADAPTER_TYPES)
    if adapter.kind not in known:
        raise InputError(f"config.adapter.kind={adapter.kind!r}: choose one "
                         f"of {', '.join(known)}")


def make_adapter_spec(config: Any, spec: BackboneSpec,
                      tap_layers: tuple[int, ...]) -> Any:
    """The spec of the adapter beside the backbone; None without one."""
    adapter = config.adapter
    if adapter.kind not in ADAPTERS:
        return None
    patches = config.augment.size // spec.patch
    with fields_as_keys(ADAPTERS[adapter.kind].spec, "config.adapter"):
        return _from_sections(
            ADAPTERS[adapter.kind].spec, adapter, in_width=spec.width,
            num_taps=len(tap_layers), clip_tokens=spec.clip_tokens,
            tap_grid=tap_grid(config, spec) or (patches, patches))


def make_head_spec(config: Any, *, in_width: int, num_classes: int,
                   remat: bool = False) -> Any:
    """The spec of the head: keys of the sections `head` and `loss`, and what
    the rest of the config decides."""
    kind = config.head.kind
    if kind not in HEADS:
        raise InputError(f"config.head.kind={kind!r}: choose one of "
                         f"{', '.join(HEADS)}")
    elsewhere = {name: f"config.loss.{name}" for name in config.loss}
    with fields_as_keys(
            HEADS[kind].spec, "config.head", **elsewhere,
            in_width=("config.features.width" if config.features.folder
                      else "config.backbone.width"),
            max_tokens="config.window.tokens"):
        return _from_sections(
            HEADS[kind].spec, config.head, config.loss, in_width=in_width,
            num_classes=num_classes, max_tokens=config.window.tokens,
            remat=remat)


def _from_sections(spec: type[Any], *sections: Any, **given: Any) -> Any:
    """A spec whose fields are given, or else keys of config sections."""
    names = {field.name for field in dataclasses.fields(spec)}
    values = {key: tuple(value) if isinstance(value, (tuple, list)) else value
              for section in reversed(sections)
              for key, value in section.items() if key in names}
    return spec(**{**values, **{name: value for name, value in given.items()
                                if name in names}})


def build_mesh(config: Any) -> Mesh:
    """The mesh over all devices that the config asks for."""
    window_clips = len(timeline.clip_edges(config.window.samples,
                                           config.window.clip_samples))
    batch = math.gcd(config.train.batch_windows,
                     config.evaluate.batch_windows)
    return sharding.make_mesh(sharding.mesh_shape(
        jax.device_count(), batch, window_clips, data=config.mesh.data,
        clip=config.mesh.clip, fsdp=config.mesh.fsdp))
