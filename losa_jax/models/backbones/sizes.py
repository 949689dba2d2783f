"""The public backbones by name, and any other size.

Sizes of VideoMAE and VideoMAEv2 (their model definitions; ViT-g's hidden
layers are 48 / 11 of its width, its patches 14 pixels).
"""

from typing import Any

from losa_jax.errors import InputError
from losa_jax.models.backbones.videomae import VitSpec

_FIELDS = ("width", "depth", "heads", "mlp_width", "patch")
SIZES = {
    "vit_s": dict(zip(_FIELDS, (384, 12, 6, 1536, 16), strict=True)),
    "vit_b": dict(zip(_FIELDS, (768, 12, 12, 3072, 16), strict=True)),
    "vit_l": dict(zip(_FIELDS, (1024, 24, 16, 4096, 16), strict=True)),
    "vit_h": dict(zip(_FIELDS, (1280, 32, 16, 5120, 16), strict=True)),
    "vit_g": dict(zip(_FIELDS, (1408, 40, 16, 6144, 14), strict=True)),
}
# The number of heads is in no tensor's shape.
HEADS_OF_WIDTH = {size["width"]: size["heads"] for size in SIZES.values()}


def backbone_size(name: str = "", *, width: int = 0, depth: int = 0,
                  heads: int = 0, mlp_width: int = 0, patch: int = 0
                  ) -> dict[str, Any]:
    """Keyword arguments of `VitSpec`.

    Args:
      name: one of `SIZES`, or "" for a size of one's own.
      width, depth, heads, mlp_width, patch: replace what the name says; 0
        keeps it. Without a name `mlp_width` is 4 widths and `patch` 16.

    Raises:
      InputError: an unknown name, or a size without name lacks a number.
    """
    if name and name not in SIZES:
        raise InputError(f"config.backbone.name={name!r}: choose one of "
                         f"{', '.join(SIZES)}, or '' and sizes of your own")
    given = dict(zip(_FIELDS, (width, depth, heads, mlp_width, patch),
                     strict=True))
    size = {**SIZES.get(name, {"mlp_width": 4 * width, "patch": 16}),
            **{field: value for field, value in given.items() if value}}
    if missing := [field for field in _FIELDS if not size.get(field)]:
        raise InputError("config.backbone without a name needs its "
                         f"{', '.join(missing)}")
    if size["width"] % size["heads"]:
        raise InputError(f"config.backbone.width={size['width']} does not "
                         f"divide by config.backbone.heads={size['heads']}")
    return size


def size_name(spec: VitSpec) -> str:
    """The public name of a size, "" for others; the patch may differ."""
    fields = _FIELDS[:-1]
    for name, size in SIZES.items():
        if all(getattr(spec, field) == size[field] for field in fields):
            return name
    return ""
