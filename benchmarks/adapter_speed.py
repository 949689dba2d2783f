"""Train steps from cached features: variants of the adapter against the ladder.

    python -m benchmarks.adapter_speed [--rounds=40] [--variants=FILE]

Sizes of configs/quick.py:ablation, with made-up features. The steps run in
turn; processor time of this process, so that other programs matter less, and
the ratio to the ladder in the same round.
"""

import argparse
import ast
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks.common.figures import table
from configs import quick
from losa_jax.distributed import sharding
from losa_jax.jobs.sweep import Variant, parse_variant, read_variants
from losa_jax.training import build
from losa_jax.training.restore import fresh_state
from losa_jax.utils.malloc import keep_freed_memory

NUM_CLASSES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--variants", type=Path,
                        help="a file of losa_jax.sweep; default: losa alone")
    arguments = parser.parse_args()
    keep_freed_memory()  # as `main` does
    variants = [parse_variant("ladder: adapter.kind=ladder"), *(
        one for one in (read_variants(arguments.variants)
                        if arguments.variants else [parse_variant("losa:")])
        if one.name != "ladder")]
    steps = {one.name: _make_step(one) for one in variants}
    for step in steps.values():
        step(), step()  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            start = time.process_time()
            step()
            seconds[name].append(time.process_time() - start)
    ladder = seconds["ladder"]
    print(table(["variant", "CPU ms: median", "least", "to ladder"], [
        (name, f"{1e3 * statistics.median(times):.1f}",
         f"{1e3 * min(times):.1f}", f"{_ratio(times, ladder):.2f}")
        for name, times in seconds.items()]))


def _ratio(times: list[float], others: list[float]) -> float:
    return statistics.median(
        one / other for one, other in zip(times, others, strict=True))


def _make_step(variant: Variant) -> Callable[[], float]:
    config = configured(variant)
    # Only says that no backbone runs.
    config.data.cache = "cache"
    mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    model = build.build_model(config, NUM_CLASSES, mesh)
    state, optimizer = fresh_state(config, model, mesh, 100)
    run = build.jit_train_step(config, model, optimizer, state, mesh)
    b, clips = config.train.batch_windows, config.window.samples // 16
    rng = np.random.default_rng(0)
    shape = (clips, 8, 4, 4, model.width)
    batch = {
        "last": rng.normal(size=(b, clips, 8, model.width)).astype(np.float32),
        "raw_taps": rng.normal(size=(
            b, len(set(model.tap_layers)), *shape)).astype(np.float16),
        "valid_samples": np.full(b, config.window.samples, np.int32),
        "segments": np.tile(np.array([[3, 9], [20, 50]], np.float32),
                            (b, 1, 1)),
        "labels": np.ones((b, 2), np.int32),
        "action_valid": np.ones((b, 2), bool)}
    batch = jax.tree.map(jnp.asarray, batch)

    def step() -> float:
        nonlocal state
        state, metrics = run(state, model.frozen, batch, jax.random.key(0))
        return float(metrics["loss"])

    return step


def configured(variant: Variant) -> ConfigDict:
    """Returns configs/quick.py:ablation with the overrides of a variant."""
    config = quick.get_config("ablation")
    for override in variant.overrides:
        key, _, value = override.partition("=")
        section, name = key.split(".")
        is_text = isinstance(config[section][name], str)
        config[section][name] = value if is_text else ast.literal_eval(value)
    return config


if __name__ == "__main__":
    main()
