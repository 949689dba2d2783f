"""V-JEPA 2's encoder against transformers, one clip, interleaved.

    python -m benchmarks.vjepa2_speed [--backbone=vjepa2_l] [--depth=4]
        [--frames=16] [--size=256]

Needs the extra `torch`. Both run the same random weights in float32 on the same
cores; transformers uses torch's fused scaled-dot-product attention. Every round
times one after the other, so that a machine whose speed drifts does not favor
either. All blocks are alike, so a few of them suffice.
"""

import argparse
import tempfile

import jax
import numpy as np
import torch
from transformers import VJEPA2Config, VJEPA2Model

import losa_jax
from benchmarks.common.figures import interleaved, times_table, use_cores
from losa_jax.models.backbones.vjepa2 import SIZES
from losa_jax.weights.backbone_folder import convert_backbone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="vjepa2_l", choices=[
        name for name, size in SIZES.items() if size["version"] == "2"])
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    use_cores(arguments.threads)
    torch.set_num_threads(arguments.threads)

    size = SIZES[arguments.backbone]
    torch.manual_seed(0)
    public = VJEPA2Model(VJEPA2Config(
        hidden_size=size["width"], num_hidden_layers=arguments.depth,
        num_attention_heads=size["heads"],
        mlp_ratio=(size["mlp_width"] + 0.5) / size["width"],
        crop_size=arguments.size, frames_per_clip=arguments.frames,
        pred_num_hidden_layers=1, attn_implementation="sdpa")).eval()
    with tempfile.TemporaryDirectory() as folder:
        public.save_pretrained(f"{folder}/public")
        convert_backbone(f"{folder}/public", f"{folder}/converted")
        backbone = losa_jax.load_backbone(f"{folder}/converted")
    clip = np.random.default_rng(0).integers(
        0, 256, (1, arguments.frames, arguments.size, arguments.size, 3),
        np.uint8)
    grid = (1, arguments.frames // 2, (arguments.size // 16) ** 2, -1)
    ours = jax.jit(lambda backbone, clip: backbone.features(clip).last)

    def theirs() -> np.ndarray:
        pixels = ((clip - np.array(backbone.spec.pixel_mean, np.float32))
                  / np.array(backbone.spec.pixel_std, np.float32))
        tokens = public(torch.from_numpy(np.ascontiguousarray(
            np.moveaxis(pixels, -1, 2), np.float32)),
            skip_predictor=True).last_hidden_state
        return tokens.reshape(grid).mean(2).numpy()

    with torch.inference_mode():
        want = theirs()
        got = np.asarray(ours(backbone, clip))
        print(f"largest difference {np.abs(got - want).max():.2g}, largest "
              f"value {np.abs(want).max():.3g}")
        seconds = interleaved({
            "transformers": theirs,
            "ours": lambda: jax.block_until_ready(ours(backbone, clip))},
            arguments.rounds)
    print(f"{arguments.depth} blocks of {arguments.backbone}, one clip of "
          f"{arguments.frames} x {arguments.size} x {arguments.size}, float32, "
          f"{arguments.threads} threads\n")
    print(times_table(seconds, against="transformers"))


if __name__ == "__main__":
    main()
