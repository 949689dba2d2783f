"""Peak memory of converting and loading a backbone of a billion parameters.

    python -m benchmarks.convert_memory [--backbone=vit_g] [--dtype=float16]

Writes a made-up checkpoint (right shapes, random values; an .npz file for
VideoPrism) into a temporary folder, then converts it, converts it with
--verify, and loads it onto one device in bfloat16, each in a process of its
own, and prints the peak resident size of each. The bound for converting is 1.3
times the file plus 1 GiB.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

from benchmarks.common.figures import table
from losa_jax.models.backbones import SIZES, requested_spec
from losa_jax.models.backbones.base import BackboneSpec
from losa_jax.models.backbones.videoprism import VideoPrismSpec
from losa_jax.weights import backbone_folder
from losa_jax.weights.name_table import expected_source

LOAD = """
import sys
import jax, jax.numpy as jnp
from losa_jax.models.ops.params import nest
from losa_jax.weights.backbone_folder import open_backbone
from losa_jax.distributed import sharding
spec, flat, _ = open_backbone(sys.argv[1])
mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
tree = sharding.read_onto_mesh(nest(flat), mesh, lambda leaf: jnp.bfloat16)
jax.block_until_ready(tree)
"""


def write_archive(path: Path, spec: BackboneSpec, dtype: np.dtype) -> None:
    """Writes random numbers in the family's layout as an .npz file."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for name, (_, _, shape) in expected_source(spec).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, rng.normal(
                    scale=0.02, size=shape).astype(dtype))


def write_checkpoint(path: Path, spec: BackboneSpec, dtype: np.dtype) -> None:
    """Writes random numbers in the family's layout, tensor by tensor."""
    rng = np.random.default_rng(0)
    expected = expected_source(spec)
    header, offset = {}, 0
    for name, (_, _, shape) in expected.items():
        size = int(np.prod(shape)) * dtype.itemsize
        header[name] = {
            "dtype": {"float16": "F16", "bfloat16": "BF16",
                      "float32": "F32"}[dtype.name],
            "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, _, shape in expected.values():
            file.write(rng.normal(scale=0.02, size=shape).astype(
                np.float32).astype(dtype).tobytes())


def peak_gib(command: list[str]) -> tuple[float, float]:
    """Returns the peak resident GiB and the seconds of a command.

    Raises:
      RuntimeError: the command failed.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{command} ended with status {status}")
    return usage.ru_maxrss / 2**20, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", choices=sorted(SIZES), default="vit_g")
    parser.add_argument("--dtype", choices=sorted(backbone_folder.DTYPES),
                        default="float16")
    arguments = parser.parse_args()
    spec = requested_spec({"name": arguments.backbone}, clip_frames=16,
                          image_size=(288, 288))
    is_archive = isinstance(spec, VideoPrismSpec)
    with tempfile.TemporaryDirectory() as folder:
        suffix = ".npz" if is_archive else ".safetensors"
        source, output = Path(folder) / f"made_up{suffix}", f"{folder}/out"
        write = write_archive if is_archive else write_checkpoint
        write(source, spec, backbone_folder.DTYPES[arguments.dtype])
        gib = source.stat().st_size / 2**30
        print(f"{arguments.backbone}, {arguments.dtype}: {gib:.2f} GiB, "
              f"bound {1.3 * gib + 1:.2f} GiB", flush=True)
        convert = [sys.executable, "-m", "losa_jax.convert", str(source),
                   f"--output={output}"]
        rows = []
        for name, command in (
                ("convert", convert),
                ("convert --verify", [*convert, "--verify"]),
                ("load in bfloat16", [sys.executable, "-c", LOAD, output])):
            peak, seconds = peak_gib(command)
            rows.append((name, f"{peak:.2f}", f"{seconds:.0f}"))
    print("\n" + table(["what", "peak resident GiB", "seconds"], rows))


if __name__ == "__main__":
    main()
