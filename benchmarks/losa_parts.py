"""Where the time of `benchmarks.losa_speed` goes, ours and torch's.

    python -m benchmarks.losa_parts [--clips=4] [--rounds=5]

Parts of LoSA ViT-S, interleaved, 2 threads, float32; a row holds all calls of
a part in one pass (12 blocks). Parts run alone here: their sum need not be
the whole.
"""

import argparse
import statistics
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional

from benchmarks.common.figures import interleaved, table
from benchmarks.losa_speed import Pair, make_config, use_threads
from losa_jax.models.ops.attention import attention
from losa_jax.models.ops.layers import LayerNorm, gelu
from losa_jax.utils.xla_options import compiler_options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    pair = Pair(make_config("vit_s", arguments.clips))
    parts = {"train step": (pair.our_step, pair.torch_step),
             "inference": (pair.our_inference, pair.torch_inference),
             "backbone": _backbones(pair), **_layers(pair)}
    runs: dict[str, Callable[[], object]] = {}
    for name, (ours, theirs) in parts.items():
        runs[f"{name}, ours"], runs[f"{name}, torch"] = ours, theirs
    # The first round compiles.
    milliseconds = {
        name: 1e3 * statistics.median(seconds[1:]) for name, seconds
        in interleaved(runs, arguments.rounds + 1).items()}
    rows = []
    for name in parts:
        ours, theirs = (milliseconds[f"{name}, {who}"]
                        for who in ("ours", "torch"))
        rows.append((name, f"{ours:.0f}", f"{theirs:.0f}",
                     f"{ours - theirs:+.0f}", f"{ours / theirs:.2f}"))
    print(table(["part", "ours, ms", "torch, ms", "difference", "ratio"],
                rows))


def _backbones(pair: Pair) -> tuple[Callable, Callable]:
    encode = jax.jit(lambda frozen, frames: pair.model.encode(
        frozen, {}, {"frames": frames}, None, None),
        compiler_options=compiler_options())
    clips = pair.frames.unflatten(0, (-1, pair.torch_model.clip_frames))

    def theirs():
        with torch.inference_mode():
            return pair.torch_model.backbone(clips)

    return (lambda: jax.block_until_ready(
        encode(pair.frozen, pair.batch["frames"])), theirs)


def _layers(pair: Pair) -> dict[str, tuple[Callable, Callable]]:
    """One layer after the other, as often as the backbone has blocks."""
    spec = pair.model.spec
    clips, c, heads = pair.frames.shape[0] // spec.clip_frames, spec.width, (
        spec.heads)
    side = pair.config.augment.size // spec.patch
    tokens = spec.clip_tokens * side ** 2
    rng = np.random.default_rng(0)

    def noise(*shape):
        return rng.normal(size=shape).astype(np.float32)

    x, wide = noise(clips * tokens, c), noise(clips * tokens, spec.mlp_width)
    qkv = noise(3, clips, tokens, heads, c // heads)
    norm = LayerNorm(c, spec.norm_epsilon)

    def product(inner, outer):
        kernel, bias = noise(inner, outer) / inner ** 0.5, noise(outer)
        weight = torch.from_numpy(kernel.T.copy())
        torch_bias = torch.from_numpy(bias)
        return (lambda x: x @ kernel + bias,
                lambda x: functional.linear(x, weight, torch_bias))

    layers = {
        f"attention, {tokens} tokens": (
            qkv, lambda x: attention(*x),
            lambda x: functional.scaled_dot_product_attention(
                *(part.transpose(1, 2) for part in x))),
        f"product {c} -> {3 * c}": (x, *product(c, 3 * c)),
        f"product {c} -> {c}": (x, *product(c, c)),
        f"product {c} -> {spec.mlp_width}": (x, *product(c, spec.mlp_width)),
        f"product {spec.mlp_width} -> {c}": (
            wide, *product(spec.mlp_width, c)),
        "GELU": (wide, gelu, functional.gelu),
        "two layer norms": (
            x, lambda x: norm(norm(x)), lambda x: functional.layer_norm(
                functional.layer_norm(x, (c,)), (c,)))}
    return {name: _repeated(inputs, ours, theirs, spec.depth)
            for name, (inputs, ours, theirs) in layers.items()}


def _repeated(inputs: np.ndarray, ours: Callable, theirs: Callable,
              times: int) -> tuple[Callable, Callable]:
    run = jax.jit(ours, compiler_options=compiler_options())
    one, other = jnp.asarray(inputs), torch.from_numpy(inputs)

    def run_ours():
        for _ in range(times):
            jax.block_until_ready(run(one))

    def run_theirs():
        with torch.inference_mode():
            for _ in range(times):
                theirs(other)

    return run_ours, run_theirs


if __name__ == "__main__":
    main()
