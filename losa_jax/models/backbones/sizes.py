"""Public names of backbones and their sizes."""

from collections.abc import Mapping
from typing import Any

from losa_jax.errors import InputError
from losa_jax.models.backbones import BACKBONES, family_of
from losa_jax.models.backbones.base import BackboneSpec

_FIELDS = ("width", "depth", "heads", "mlp_width", "patch")
SIZES = {name: size for family in BACKBONES.values()
         for name, size in family.sizes.items()}


def backbone_size(name: str = "", *, width: int = 0, depth: int = 0,
                  heads: int = 0, mlp_width: int = 0, patch: int = 0
                  ) -> dict[str, Any]:
    """Returns the keyword arguments of a spec.

    Args:
      name: one of `SIZES`, or "" for a VideoMAE of another size.
      width, depth, heads, mlp_width, patch: replace the named size; 0 keeps
        it. Without a name `mlp_width` is 4 widths and `patch` 16.

    Raises:
      InputError: an unknown name, or a size without name lacks a number.
    """
    if name and name not in SIZES:
        raise InputError(f"config.backbone.name={name!r}: choose one of "
                         f"{', '.join(SIZES)}, or '' and other sizes")
    given = dict(zip(_FIELDS, (width, depth, heads, mlp_width, patch),
                     strict=True))
    size = {**SIZES.get(name, {"mlp_width": 4 * width, "patch": 16}),
            **{field: value for field, value in given.items() if value}}
    if missing := [field for field in _FIELDS
                   if not name and not size.get(field)]:
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
    """Returns the spec of a backbone without a checkpoint.

    Args:
      request: arguments of `backbone_size`.
      clip_frames, image_size: further fields of the spec.
    """
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
