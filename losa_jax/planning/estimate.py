"""What a program needs of a chip: memory, work, and a roofline of its time.

Assumptions of the time: matrix products are spread evenly over the chips;
bytes to memory are those of `Program.memory_traffic`; a collective moves the
larger of its operand and result once over the chip's links, an all-reduce
twice. `best` has all three overlap at the data sheet's figures. `cautious`
has nothing overlap, and matrix products reach `USUAL_SHARE` of the data
sheet. Element-wise work, start-up of kernels and the network between hosts
of GPUs are in neither.
"""

import dataclasses
import re
import time
from typing import Any

import jax

from losa_jax.planning.cost import largest_arrays, matmul_flops
from losa_jax.planning.program import Collective, Program
from losa_jax.planning.topology import Chip

# What large matrix products reach of the data sheet's FLOP/s in practice.
USUAL_SHARE = 0.4
# Buffers that are listed where a program does not fit.
MAX_BUFFERS = 6
# Without a GPU to try tile sizes on, Triton's products cannot be chosen: the
# library's are taken. Memory is the same, but for their small workspaces.
GPU_OPTIONS = {"xla_gpu_enable_triton_gemm": False,
               "xla_gpu_autotune_level": 0}


@dataclasses.dataclass(frozen=True)
class Need:
    """A compiled program on one chip.

    Attributes:
      fits: in the chip's memory.
      argument_bytes, temporary_bytes, peak_bytes: memory; None where the
        compiler itself ran out.
      flops: matrix products, loops multiplied out.
      memory_traffic: bytes to and from memory.
      collectives: by kind, loops multiplied out.
      compute_seconds, memory_seconds, link_seconds: each at the data sheet's
        figures.
      best_seconds, cautious_seconds: see the module.
      largest: the largest buffers, where it does not fit; those of the
        program before it was compiled, evenly spread, where the compiler
        names none.
      why_not: the compiler's words, where it ran out of memory.
      compile_seconds: how long it took to find out.
    """

    fits: bool
    flops: float
    compile_seconds: float
    argument_bytes: int | None = None
    temporary_bytes: int | None = None
    peak_bytes: int | None = None
    memory_traffic: int = 0
    collectives: dict[str, Collective] = dataclasses.field(
        default_factory=dict)
    compute_seconds: float = 0.0
    memory_seconds: float = 0.0
    link_seconds: float = 0.0
    best_seconds: float = 0.0
    cautious_seconds: float = 0.0
    largest: tuple[str, ...] = ()
    why_not: str = ""


def estimate(traced: jax.stages.Traced, chip: Chip, num_devices: int) -> Need:
    """Compiles; running out of memory is an answer, not an error.

    Args:
      traced: `jax.jit(f).trace(...)` of arguments on the devices.
      chip: what each device is.
      num_devices: that share the work.
    """
    flops = matmul_flops(traced.jaxpr) / num_devices
    started = time.perf_counter()
    try:
        compiled = traced.lower().compile(
            compiler_options=None if chip.gpu is None else GPU_OPTIONS)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        largest = _compilers_buffers(str(error)) or [
            f"{size / num_devices / 2**20:,.0f} MiB  {name} / {num_devices}"
            for size, name in largest_arrays(traced.jaxpr, MAX_BUFFERS)]
        return Need(False, flops, time.perf_counter() - started,
                    largest=tuple(largest), why_not=_first_line(str(error)))
    seconds = time.perf_counter() - started
    memory = compiled.memory_analysis()
    peak = peak_bytes(memory)
    program = Program(compiled.as_text())
    found = program.collectives()
    fits = peak <= chip.memory_bytes
    compute = flops / chip.flops
    traffic = program.memory_traffic()
    link = sum(one.total_bytes * (2 if kind == "all-reduce" else 1)
               for kind, one in found.items()) / chip.link_bytes
    from_memory = traffic / chip.memory_bandwidth
    return Need(
        fits, flops, seconds, memory.argument_size_in_bytes,
        memory.temp_size_in_bytes, peak, traffic, found, compute,
        from_memory, link, max(compute, from_memory, link),
        compute / USUAL_SHARE + from_memory + link,
        () if fits else tuple(
            f"{size / 2**20:,.0f} MiB  {name}" for size, name
            in program.largest_buffers(MAX_BUFFERS)))


def peak_bytes(memory: Any) -> int:
    """Of `compiled.memory_analysis()`.

    The processor's backend leaves temporary memory out of its peak: there it
    is all that the program touches, donated arguments once.
    """
    whole = (memory.argument_size_in_bytes + memory.output_size_in_bytes
             - memory.alias_size_in_bytes)
    peak = memory.peak_memory_in_bytes
    return peak if peak > whole else whole + memory.temp_size_in_bytes


def _first_line(message: str) -> str:
    lines = [line for line in message.splitlines()
             if "exceed" in line.lower() or "ran out" in line.lower()]
    return (lines or message.splitlines())[0].strip()[:300]


def _compilers_buffers(message: str) -> list[str]:
    """The largest allocations, as libtpu's message lists them."""
    found: list[dict[str, str]] = []
    for line in map(str.strip, message.splitlines()):
        key, _, value = re.sub(r"^\d+\. ", "", line).partition(": ")
        if key == "Size":
            found.append({})
        if found and key in ("Size", "Shape", "Operator"):
            found[-1].setdefault(key, value.strip())
    return [f"{one['Size']}  {one.get('Shape', '')} "
            f"{one.get('Operator', '')[:120]}".rstrip()
            for one in found[:MAX_BUFFERS]]
