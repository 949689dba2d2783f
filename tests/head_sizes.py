"""Numbers of parameters of the public heads, counted by hand layer by layer."""

import jax
from flax import nnx

from losa_jax.models.heads import HEADS
from losa_jax.models.ops.params import flatten, parameters
from losa_jax.training.specs import make_head_spec


def num_parameters(config, in_width, num_classes):
    """Counts those of the head that a recipe makes."""
    spec = make_head_spec(config, in_width=in_width, num_classes=num_classes)
    tree = jax.eval_shape(lambda: parameters(
        HEADS[config.head.kind].module(spec, rngs=nnx.Rngs(0))))
    return sum(leaf.size for leaf in flatten(tree).values())


def size_by_hand(config, in_width, num_classes):
    """Counts those of the recipe's values by hand."""
    head = config.head
    if head.input_projections:
        projections = sum((width + 1) * out for width, out in zip(
            head.input_widths, head.input_projections, strict=True))
        return projections + actionformer_size(
            sum(head.input_projections), num_classes, width=head.width,
            levels=head.num_levels)
    if head.kind == "actionformer":
        return actionformer_size(
            in_width, num_classes, width=head.width, levels=head.num_levels,
            embedding=head.num_embedding_convs, stem=head.num_stem_blocks)
    return tridet_size(
        in_width, num_classes, width=head.width, head_width=head.head_width,
        window=head.sgp_window[0], k=head.sgp_k, mlp=head.sgp_mlp_width,
        bins=head.num_bins, levels=head.num_levels, kernel=head.head_kernel,
        boundary_kernel=head.boundary_kernel)


def actionformer_size(in_width, classes, *, width=512, embedding=2, stem=2,
                      levels=6):
    block = (3 * 3 * width + 3 * 2 * width  # depthwise convolutions, norms
             + 4 * (width * width + width)  # query, key, value, projection
             + 2 * 2 * width  # norms
             + 8 * width * width + 5 * width  # MLP
             + 2 * width)  # scales of the drop path
    return (_embedding(in_width, width, embedding)
            + (stem + levels - 1) * block + levels * 2 * width
            + _output(classes, width, width) + _output(2, width, width)
            + levels)


def tridet_size(in_width, classes, *, width=512, head_width=0, window=1, k=5.0,
                mlp=768, bins=16, levels=6, kernel=3, boundary_kernel=3):
    def block(window):
        wide = round((window + 1) * k)
        wide += 1 - wide % 2
        return (2 * width  # norm
                + width * (2 * (window + 1) + wide + 1 + 2 * 2)  # depthwise
                + 2 * width  # group norm
                + 2 * width * mlp + mlp + width)

    scales = 2 * width  # of the drop path, not in the stem
    hidden = head_width or width
    return (_embedding(in_width, width, 2) + 2 * block(1)
            + (levels - 1) * (block(window) + scales) + levels * 2 * width
            + _output(classes, width, hidden, kernel)
            + _output(2 * (bins + 1), width, hidden, kernel) + levels
            + 2 * _output(classes, width, hidden, boundary_kernel))


def _embedding(in_width, width, count):
    return (3 * in_width * width + (count - 1) * 3 * width * width
            + count * 2 * width)


def _output(outputs, width, hidden, kernel=3):
    """Two hidden convolutions with norms, and that of the outputs."""
    return (kernel * hidden * (width + hidden) + 2 * 2 * hidden
            + kernel * hidden * outputs + outputs)
