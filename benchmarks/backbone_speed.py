"""The frozen backbone against torch, one clip, interleaved.

    python -m benchmarks.backbone_speed [--backbone=vit_b] [--size=224]

Needs the extra `torch`. Both run the same random weights in float32 on the
same cores; torch uses its fused scaled-dot-product attention. Every round
times one after the other, so that a machine whose speed drifts does not
favor either. Prints medians and the ratio.
"""

import argparse

import jax
import numpy as np
import torch
from flax import nnx

from benchmarks.common import videomae_torch
from benchmarks.common.figures import interleaved, times_table, use_cores
from losa_jax.models.backbones import backbone_size
from losa_jax.models.backbones.videomae import (
    SIZES,
    VideoMae,
    VideoMaeSpec,
)
from losa_jax.models.ops.params import Template, flatten
from losa_jax.weights.name_table import source_tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", choices=sorted(SIZES), default="vit_b")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    use_cores(arguments.threads)
    torch.set_num_threads(arguments.threads)

    spec = VideoMaeSpec(**backbone_size(arguments.backbone),
                        image_size=(arguments.size,) * 2, final_norm="none")
    template = Template(lambda: VideoMae(spec, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(scale=0.02, size=leaf.shape).astype(
            np.float32), template.shapes)
    clip = rng.integers(0, 256, (1, spec.clip_frames, *spec.image_size, 3),
                        np.uint8)
    ours = jax.jit(lambda params, clip: template.bind(params).features(
        clip).last)
    on_device = jax.device_put(params)

    state = videomae_torch.as_torch(source_tensors(spec, flatten(params)))
    blocks = [{name.removeprefix(f"blocks.{i}."): tensor
               for name, tensor in state.items()
               if name.startswith(f"blocks.{i}.")}
              for i in range(spec.depth)]

    def theirs(clip: np.ndarray) -> np.ndarray:
        pixels = (clip - np.array(spec.pixel_mean, np.float32)) / np.array(
            spec.pixel_std, np.float32)
        pixels = torch.from_numpy(
            np.ascontiguousarray(np.moveaxis(pixels, -1, 1), np.float32))
        x = videomae_torch.embed(state, pixels, spec)
        for block in blocks:
            x = videomae_torch.block(block, x, spec)
        return x.reshape(1, spec.clip_tokens, -1, spec.width).mean(2).numpy()

    with torch.inference_mode():
        want = theirs(clip)
        got = np.asarray(ours(on_device, clip))
        print(f"largest difference {np.abs(got - want).max():.2g}, largest "
              f"value {np.abs(want).max():.3g}")
        seconds = interleaved({
            "torch": lambda: theirs(clip),
            "ours": lambda: jax.block_until_ready(ours(on_device, clip))},
            arguments.rounds)
    print(f"{arguments.backbone}, one clip of {spec.clip_frames} x "
          f"{arguments.size} x {arguments.size}, float32, "
          f"{arguments.threads} threads\n")
    print(times_table(seconds, against="torch"))


if __name__ == "__main__":
    main()
