"""Frozen video backbones.

`BACKBONES` is the one place that lists their families. The weights of a
family are read by the module `losa_jax.weights.<family>`, which is opened by
that name.
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
    """Returns the name of the family whose spec this is.

    Raises:
      InputError: the table has no such family.
    """
    for name, family in BACKBONES.items():
        if type(spec) is family.spec:
            return name
    raise InputError(f"{type(spec).__name__} is the spec of no family in "
                     "losa_jax.models.backbones.BACKBONES: add its line")


def backbone_template(spec: BackboneSpec) -> Template:
    """Returns the backbone of a spec of any family, without parameters."""
    module = BACKBONES[family_of(spec)].module
    return Template(lambda: cast(nnx.Module, module(spec, rngs=nnx.Rngs(0))))
