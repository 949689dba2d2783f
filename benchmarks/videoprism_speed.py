"""VideoPrism's encoder against its own public JAX code, one clip, interleaved.

    python -m benchmarks.videoprism_speed [--backbone=videoprism_b] [--depth=4]
        [--frames=16] [--size=288]

Needs the public package, which is not on PyPI and so in no extra:

    pip install git+https://github.com/google-deepmind/videoprism

Both are compiled by jax.jit and run the same random weights in float32 on the
same cores; the public model scans its blocks, as in its published settings.
Every round times one after the other, so that a machine whose speed drifts does
not favor either. All blocks of a stack are alike, so a few of them suffice, in
the published ratio of spatial to temporal blocks.
"""

import argparse
import tempfile

import flax
import jax
import jax.numpy as jnp
import numpy as np
from videoprism import encoders, models

import losa_jax
from benchmarks.common.figures import interleaved, times_table, use_cores
from losa_jax.weights.backbone_folder import convert_backbone

PUBLIC_NAMES = {"videoprism_b": "videoprism_v1_base",
                "videoprism_l": "videoprism_v1_large"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="videoprism_b",
                        choices=PUBLIC_NAMES)
    parser.add_argument("--depth", type=int, default=4,
                        help="blocks of both stacks, at least 2")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=288)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    use_cores(arguments.threads)

    config = models.CONFIGS[PUBLIC_NAMES[arguments.backbone]]
    temporal, spatial = (config[f"num_{part}_layers"]
                         for part in ("temporal", "spatial"))
    temporal = max(1, arguments.depth * temporal // (temporal + spatial))
    spatial = arguments.depth - temporal
    public = encoders.FactorizedEncoder(**{
        **config, "num_spatial_layers": spatial,
        "num_temporal_layers": temporal})
    clip = np.random.default_rng(0).integers(
        0, 256, (1, arguments.frames, arguments.size, arguments.size, 3),
        np.uint8)
    weights = jax.jit(public.init)(jax.random.key(0),
                                   jnp.zeros(clip.shape, jnp.float32))
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/public.npz",
                 **flax.traverse_util.flatten_dict(weights, sep="/"))
        convert_backbone(f"{folder}/public.npz", f"{folder}/converted")
        backbone = losa_jax.load_backbone(f"{folder}/converted")
    ours = jax.jit(lambda backbone, clip: backbone.features(clip).last)

    @jax.jit
    def theirs(weights, clip):
        tokens, _ = public.apply(weights, clip.astype(jnp.float32) / 255)
        patches = tokens.shape[1] // arguments.frames
        return tokens.reshape(1, arguments.frames, patches, -1).mean(2)

    want = np.asarray(theirs(weights, clip))
    got = np.asarray(ours(backbone, clip))
    print(f"largest difference {np.abs(got - want).max():.2g}, largest value "
          f"{np.abs(want).max():.3g}")
    seconds = interleaved({
        "public code": lambda: jax.block_until_ready(theirs(weights, clip)),
        "ours": lambda: jax.block_until_ready(ours(backbone, clip))},
        arguments.rounds)
    print(f"{spatial} spatial and {temporal} temporal blocks of "
          f"{arguments.backbone}, one clip of {arguments.frames} x "
          f"{arguments.size} x {arguments.size}, float32, "
          f"{arguments.threads} threads\n")
    print(times_table(seconds, against="public code"))


if __name__ == "__main__":
    main()
