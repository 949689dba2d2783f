"""Copies of memory-mapped arrays."""

import subprocess
import sys

import numpy as np
import pytest

from losa_jax.utils.memory_map import copied


@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (4, 3, 5)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_copy_has_the_numbers_and_the_dtype(tmp_path, shape, dtype):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    copy = copied(mapped, dtype)
    assert copy.dtype == dtype and not np.shares_memory(copy, mapped)
    np.testing.assert_array_equal(copy, array.astype(dtype))
    part = copied(mapped[1:], dtype) if shape else copy
    np.testing.assert_array_equal(
        part, array[1:].astype(dtype) if shape else copy)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_pages_of_the_file_are_not_kept(tmp_path):
    path = tmp_path / "stack.npy"
    np.save(path, np.ones((64, 512, 1024), np.float32))  # 128 MiB
    code = f"""
import resource
import numpy as np
from losa_jax.utils.memory_map import copied
mapped = np.load({str(path)!r}, mmap_mode="r")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
copied(mapped, np.float16)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    kib = int(subprocess.run([sys.executable, "-c", code], check=True,
                             capture_output=True, text=True).stdout)
    # The copy has 64 MiB, a row of the file 2.
    assert kib < 80 * 2**10
