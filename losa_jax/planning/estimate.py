"""Memory, FLOPs and best-case time of a step that is compiled but not run."""

import dataclasses
import time
from typing import Any

import jax

from losa_jax.planning.cost import matmul_flops
from losa_jax.planning.topology import Chip

# Of the compiler's message where memory does not suffice.
MAX_MESSAGE_LINES = 40
# Triton's tile sizes can only be chosen on a GPU, so the library's matrix
# products are compiled. Memory is the same but for their small workspaces.
GPU_OPTIONS = {"xla_gpu_enable_triton_gemm": False,
               "xla_gpu_autotune_level": 0}


@dataclasses.dataclass(frozen=True)
class Need:
    """What a step needs of a chip."""

    fits: bool  # in the chip's memory
    total_flops: int  # of matrix products, on all chips together
    attention_flops: int  # the part of them in softmax attention
    chip_flops: float  # of one chip, if they are spread evenly
    best_seconds: float | None  # for these at the rated FLOP/s, if known
    compile_seconds: float  # also of a failed compilation
    # Of one chip; None where the compiler ran out of memory, with its message.
    argument_bytes: int | None = None
    temporary_bytes: int | None = None
    peak_bytes: int | None = None
    message: str = ""


def estimate(traced: jax.stages.Traced, chip: Chip, num_devices: int) -> Need:
    """Compiles a traced step for devices that share the work.

    Running out of memory is a result, not an error.
    """
    total = matmul_flops(traced.jaxpr)
    on_chip = total / num_devices
    flops = (total, matmul_flops(traced.jaxpr, "attention"), on_chip,
             on_chip / chip.flops if chip.flops else None)
    started = time.perf_counter()
    try:
        memory = traced.lower().compile(
            compiler_options=GPU_OPTIONS if chip.gpu else None
            ).memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        lines = [line for line in str(error).splitlines() if line.strip()]
        return Need(False, *flops, time.perf_counter() - started,
                    message="\n".join(lines[:MAX_MESSAGE_LINES]))
    peak = peak_bytes(memory)
    fits = chip.memory_bytes is None or peak <= chip.memory_bytes
    return Need(fits, *flops, time.perf_counter() - started,
                memory.argument_size_in_bytes, memory.temp_size_in_bytes,
                peak)


def peak_bytes(memory: Any) -> int:
    """Returns the peak of a `compiled.memory_analysis()`.

    The CPU backend leaves temporary memory out of its own figure. There the
    peak is all that the program touches, donated arguments once.
    """
    arrays = (memory.argument_size_in_bytes + memory.output_size_in_bytes
              - memory.alias_size_in_bytes)
    peak = memory.peak_memory_in_bytes
    return peak if peak > arrays else arrays + memory.temp_size_in_bytes
