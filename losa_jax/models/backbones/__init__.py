"""Frozen video backbones: their families, names and sizes.

`losa_jax.weights.<family>` reads the weights of a family.
"""

from collections.abc import Mapping
from typing import Any, cast

from flax import nnx

from losa_jax.errors import InputError
from losa_jax.models.backbones import videomae, videoprism, vjepa2
from losa_jax.models.backbones.base import BackboneFamily, BackboneSpec
from losa_jax.models.ops.params import Template

BACKBONES = {
    "videomae": BackboneFamily(videomae.VideoMaeSpec, videomae.VideoMae,
                               videomae.SIZES),
    "videoprism": BackboneFamily(videoprism.VideoPrismSpec,
                                 videoprism.VideoPrism, videoprism.SIZES),
    "vjepa2": BackboneFamily(vjepa2.VJepa2Spec, vjepa2.VJepa2, vjepa2.SIZES),
}
SIZES = {name: size for family in BACKBONES.values()
         for name, size in family.sizes.items()}


def family_of(spec: BackboneSpec) -> str:
    """Returns the name of a spec's family; InputError if it is not listed."""
    for name, family in BACKBONES.items():
        if type(spec) is family.spec:
            return name
    raise InputError(f"{type(spec).__name__} belongs to no family in "
                     "losa_jax.models.backbones.BACKBONES: add it there")


def backbone_template(spec: BackboneSpec) -> Template:
    """Returns the backbone of a spec of any family, without parameters."""
    module = BACKBONES[family_of(spec)].module
    return Template(lambda: cast(nnx.Module, module(spec, rngs=nnx.Rngs(0))))


def backbone_size(name: str = "", **sizes: int) -> dict[str, Any]:
    """Returns the keyword arguments of a spec.

    `name` is one of `SIZES`, or "" for a VideoMAE of another size. The `sizes`
    (width, depth, heads, mlp_width, patch) replace the named size; 0 keeps it.
    Without a name `mlp_width` is 4 widths and `patch` 16.

    Raises:
      InputError: an unknown name, or a size without name lacks a number.
    """
    if name and name not in SIZES:
        raise InputError(f"config.backbone.name={name!r}: choose one of "
                         f"{', '.join(SIZES)}, or '' with width, depth, heads")
    default = {"mlp_width": 4 * sizes.get("width", 0), "patch": 16}
    size = {**SIZES.get(name, default),
            **{field: value for field, value in sizes.items() if value}}
    needed = () if name else ("width", "depth", "heads", "mlp_width", "patch")
    if missing := [field for field in needed if not size.get(field)]:
        raise InputError("config.backbone without a name needs its "
                         f"{', '.join(missing)}")
    if size["width"] % size.get("heads", 1):
        raise InputError(f"config.backbone.width={size['width']} does not "
                         f"divide by config.backbone.heads={size['heads']}")
    return size


def requested_family(name: str) -> str:
    """Returns the family of a public name; VideoMAE if the name is empty."""
    return next((family for family, entry in BACKBONES.items()
                 if name in entry.sizes), "videomae")


def requested_spec(request: Mapping[str, Any], *, clip_frames: int,
                   image_size: tuple[int, int]) -> BackboneSpec:
    """Returns the spec for a `request` of arguments of `backbone_size`."""
    family = BACKBONES[requested_family(request["name"])]
    return family.spec(**backbone_size(**request), clip_frames=clip_frames,
                       image_size=image_size)


def size_name(spec: BackboneSpec) -> str:
    """Returns the public name of a size of any patch, "" for other sizes."""
    for name, size in BACKBONES[family_of(spec)].sizes.items():
        if all(getattr(spec, field) == value for field, value in size.items()
               if field != "patch"):
            return name
    return ""
