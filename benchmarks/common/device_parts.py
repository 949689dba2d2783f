"""One part of benchmarks.accelerator, in a process of its own.

    python -m benchmarks.common.device_parts PART OUTPUT.json

PART is "device", "attention", "parity:DTYPE" or "recipe:VARIANT", with the
variants of configs/thumos.py, or "tiny" for a model that a CPU runs in
seconds. In a process of its own the peak memory is that of the part.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax

from benchmarks.common import device_parity, device_speed
from configs import thumos
from losa_jax.utils.malloc import keep_freed_memory

TINY = "tiny"
# Tokens of a clip, heads, channels of a head.
ATTENTION_SHAPES = {"ViT-B at 160 px": (800, 12, 64),
                    "ViT-g at 224 px": (1568, 16, 88)}
TINY_SHAPES = {TINY: (64, 2, 16)}
ADAPTERS = ("losa", "full")


def main() -> None:
    part, output = sys.argv[1:]
    keep_freed_memory()  # as a run does
    name, _, variant = part.partition(":")
    result = {"device": describe_device, "attention": attention,
              "parity": parity, "recipe": recipe}[name](
                  *([variant] if variant else []))
    Path(output).write_text(json.dumps(result), encoding="utf-8")


def describe_device() -> dict[str, Any]:
    """Returns what the devices are, and their rated FLOP/s."""
    device = jax.devices()[0]
    return {"platform": device.platform, "kind": device.device_kind,
            "count": len(jax.devices()), "jax": jax.__version__,
            "peak_flops": device_speed.peak_flops(device.device_kind)}


def attention() -> dict[str, Any]:
    """Compares the attention of each shape and dtype."""
    return {f"{name}, {dtype}": device_parity.compare_attention(
                tokens=tokens, heads=heads, channels=channels, dtype=dtype)
            for name, (tokens, heads, channels) in (
                TINY_SHAPES if is_cpu() else ATTENTION_SHAPES).items()
            for dtype in device_parity.ATTENTION_BOUNDS}


def parity(dtype: str) -> dict[str, Any]:
    """Compares models beside and, unless this is a CPU, inside a backbone."""
    return {f"{adapter_type}, {dtype}": device_parity.compare_model(
                device_parity.parity_config(is_cpu()), dtype, adapter_type)
            for adapter_type in ADAPTERS[:1 if is_cpu() else None]}


def recipe(variant: str) -> dict[str, Any]:
    """Measures a variant of THUMOS's recipe."""
    config = thumos.get_config("s" if variant == TINY else variant)
    if variant == TINY:
        device_parity.make_tiny(config)
    return device_speed.measure_recipe(config)


def is_cpu() -> bool:
    """Whether there is no accelerator, so that only small models run."""
    return jax.default_backend() == "cpu"


if __name__ == "__main__":
    main()
