"""Builds the model of a config and jits its steps."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from losa_jax.data.windows.sampling import round_up
from losa_jax.distributed import sharding
from losa_jax.errors import InputError
from losa_jax.models.adapters import ADAPTERS, inside_backbone
from losa_jax.models.backbones import requested_spec
from losa_jax.models.backbones.base import BackboneSpec
from losa_jax.models.detector import Detector
from losa_jax.models.heads import HEADS
from losa_jax.models.ops import params
from losa_jax.training import encoder, specs
from losa_jax.training.step import (
    make_pair_step,
    make_predict_step,
    make_train_step,
)
from losa_jax.utils.xla_options import compiler_options
from losa_jax.weights import head_folder, name_table


@dataclasses.dataclass(frozen=True)
class Model:
    """The model of a run; its parameters are on the mesh.

    Attributes:
      width: channels of the features.
      tubelet: samples per token of the encoder.
      spec: of the backbone; None where features come from files.
      frozen: parameters of the backbone without gradient.
      fingerprint: hash of the backbone's weights.
      detector: template of adapter, fusion and head.
      trained: their initial parameters, and those of the backbone that are
        trained, under "backbone".
      tap_layers: blocks that the adapter reads.
      shapes_for: number of classes to the shapes of adapter and head.
    """

    width: int
    tubelet: int
    spec: BackboneSpec | None
    frozen: params.Tree
    fingerprint: str
    detector: params.Template
    trained: params.Tree
    encode: encoder.Encode
    tap_layers: tuple[int, ...]
    shapes_for: Callable[[int], params.Tree]


def build_model(config: Any, num_classes: int, mesh: Mesh, *,
                for_videos: bool = False, abstract: bool = False) -> Model:
    """Loads the frozen backbone and initializes the trained part.

    Args:
      num_classes: of the head.
      for_videos: a finished run is used on videos: data.cache and
        head.checkpoint of the config, which training reads, are ignored.
      abstract: leaves are `jax.ShapeDtypeStruct`, no checkpoint is read.

    Raises:
      InputError: the backbone is missing or damaged, or a key does not fit.
    """
    spec: BackboneSpec | None = None
    flat: dict[str, Any] = {}
    fingerprint = "features"
    if abstract:
        spec, flat = _described_backbone(config)
    elif not config.features.folder:
        spec, flat, info = specs.configured_backbone(config)
        fingerprint = info.fingerprint
    specs.check_window(config, spec)
    cached = bool(config.data.cache) and not for_videos
    tap_layers: tuple[int, ...] = ()
    adapter_spec = None
    width, tubelet = config.features.width, 1
    if spec is not None:
        width, tubelet = spec.width, spec.tubelet
        tap_layers = specs.choose_tap_layers(config.adapter, spec.depth)
        adapter_spec = specs.make_adapter_spec(config, spec, tap_layers)
    specs.check_deep_supervision(config, len(tap_layers))
    head_spec = specs.make_head_spec(
        config, in_width=width, num_classes=num_classes,
        # Saves memory beside a backbone that runs; the extra time is small.
        remat=spec is not None and not cached)
    specs.check_tokens(config, head_spec)

    def build(num_classes: int = num_classes) -> Detector:
        rngs = nnx.Rngs(config.seed)
        adapter = None if adapter_spec is None else (
            ADAPTERS[config.adapter.kind].module(adapter_spec, rngs=rngs))
        head = HEADS[config.head.kind].module(dataclasses.replace(
            head_spec, num_classes=num_classes), rngs=rngs)
        return Detector(
            adapter, head,
            samples_per_token=config.window.samples / config.window.tokens,
            tubelet=tubelet)

    trained = sharding.make_on_mesh(lambda: params.parameters(build()), mesh,
                                    abstract=abstract)
    if spec is None:
        backbone = encoder.feature_encoder()
    elif config.adapter.kind in inside_backbone.ADAPTER_TYPES:
        backbone, trained["backbone"] = encoder.inside_backbone_encoder(
            config, spec, flat, mesh, abstract=abstract)
    else:
        backbone = encoder.frozen_encoder(
            config, spec, {} if cached else flat,
            tap_layers if adapter_spec else (), mesh, abstract=abstract)
    if config.head.checkpoint and not (for_videos or abstract):
        trained["head"] = _converted_head(config.head.checkpoint,
                                          trained["head"], mesh)
    return Model(width, tubelet, spec, backbone.frozen, fingerprint,
                 params.Template(build), trained, backbone.encode, tap_layers,
                 lambda count: params.Template(lambda: build(count)).shapes)


def _described_backbone(config: Any) -> tuple[BackboneSpec, dict[str, Any]]:
    """Returns the spec that the config asks for, and views of one zero."""
    size = config.augment.size
    with specs.backbone_keys(config):
        spec = requested_spec(specs.backbone_request(config.backbone),
                              clip_frames=config.window.clip_samples,
                              image_size=(size, size))
    return spec, {name: np.broadcast_to(np.zeros((), np.float32), shape)
                  for name, shape in name_table.expected_shapes(spec).items()}


def _converted_head(folder: str, fresh: params.Tree, mesh: Mesh) -> params.Tree:
    """Loads a converted head with the shapes of a fresh one."""
    flat, facts = head_folder.load_head(folder)
    wanted, given = ({name: leaf.shape for name, leaf in leaves.items()}
                     for leaves in (params.flatten(fresh), flat))
    wrong = [f"{name}: {given.get(name, 'missing')}, the config's is "
             f"{wanted.get(name, 'missing')}"
             for name in sorted(wanted | given)
             if given.get(name) != wanted.get(name)]
    if wrong:
        raise InputError(
            f"config.head.checkpoint={folder} does not fit the config's head "
            f"in {len(wrong)} parameters:\n  " + "\n  ".join(wrong[:8])
            + f"\nIts settings are {facts['settings']}")
    return sharding.put(params.nest(flat), jax.tree.map(
        lambda leaf: sharding.replicated(mesh), fresh))


def jit_train_step(config: Any, model: Model,
                   optimizer: optax.GradientTransformation, state: Any,
                   mesh: Mesh) -> Any:
    """Jits `make_train_step`; `state` has the shardings of the result."""
    step = make_train_step(model.encode, model.detector, optimizer,
                           ema_decay=config.train.ema_decay,
                           ema_warmup=config.train.ema_warmup,
                           deep_supervision=config.loss.deep_supervision)
    return jax.jit(
        step, donate_argnums=0,
        # With other shardings than the input's the second step would
        # compile again.
        out_shardings=(sharding.of_leaves(state), sharding.replicated(mesh)),
        compiler_options=compiler_options(mesh))


def jit_predict_step(config: Any, model: Model, mesh: Mesh) -> Any:
    """Jits `make_predict_step`."""
    return jax.jit(
        make_predict_step(model.encode, model.detector,
                          specs.decode_settings(config.evaluate)),
        out_shardings=sharding.replicated(mesh),
        compiler_options=compiler_options(mesh))


def jit_pair_step(config: Any, models: tuple[Model, Model], mesh: Mesh
                  ) -> Any:
    """Jits `make_pair_step`."""
    first, second = ((model.encode, model.detector) for model in models)
    return jax.jit(
        make_pair_step(first, second, specs.decode_settings(config.evaluate)),
        out_shardings=sharding.replicated(mesh),
        compiler_options=compiler_options(mesh))


def build_mesh(config: Any, devices: list[Any] | None = None) -> Mesh:
    """Returns the mesh that the config asks for, over `devices` or over all,
    for the batches of training; see `evaluation_windows`."""
    devices = jax.devices() if devices is None else devices
    return sharding.make_mesh(sharding.mesh_shape(
        len(devices), config.train.batch_windows, specs.window_clips(config),
        **config.mesh), devices)


def evaluation_windows(config: Any, axes: Mapping[str, int]) -> int:
    """Returns the windows of an evaluation batch: evaluate.batch_windows, or
    more, so that the axis `data` of a mesh, {axis: devices}, divides them."""
    return round_up(config.evaluate.batch_windows, axes["data"])
