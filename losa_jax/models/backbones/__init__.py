"""Frozen video backbones.

`BACKBONES` lists their families. `losa_jax.weights.<family>` reads the weights
of a family.
"""

from typing import cast

from flax import nnx

from losa_jax.errors import InputError
from losa_jax.models.backbones import videomae
from losa_jax.models.backbones.base import BackboneFamily, BackboneSpec
from losa_jax.models.ops.params import Template

BACKBONES = {
    "videomae": BackboneFamily(videomae.VideoMaeSpec, videomae.VideoMae,
                               videomae.SIZES),
}


def family_of(spec: BackboneSpec) -> str:
    """Returns the name of a spec's family; InputError if it is not listed."""
    for name, family in BACKBONES.items():
        if type(spec) is family.spec:
            return name
    raise InputError(f"{type(spec).__name__} belongs to no family in "
                     "losa_jax.models.backbones.BACKBONES: add its line")


def backbone_template(spec: BackboneSpec) -> Template:
    """Returns the backbone of a spec of any family, without parameters."""
    module = BACKBONES[family_of(spec)].module
    return Template(lambda: cast(nnx.Module, module(spec, rngs=nnx.Rngs(0))))
