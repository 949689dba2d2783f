"""What every test needs: CPU, eight virtual devices, the shared folder."""

import atexit
import gc
import importlib.metadata
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

# Before anything imports jax: a real accelerator on the machine must not
# change the results, and sharding tests need several devices.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    # Tests compile far more than they compute: a plain translation is made
    # in a fraction of the time.
    + " --xla_backend_optimization_level=0"
    + " --xla_llvm_disable_expensive_passes=true"
    + " --xla_cpu_parallel_codegen_split_count=1"
)
# Kernels by LLVM alone, without MLIR before it: a train step of the tests
# compiles in 8 s instead of 22. Newer compilers have no such choice, and
# XLA stops at a flag that it does not know.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
# Many tests compile the same program, some in processes of their own: the
# workers of one session share what they compiled.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(
        prefix="losa_tests_compiled_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"],
                    ignore_errors=True)

import fsspec  # noqa: E402
import pytest  # noqa: E402
from etils.epath import backend  # noqa: E402
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

import tests.shape_checks  # noqa: E402,F401  the hook names it

# Arrays are checked against the shapes and dtypes of the annotations.
install_import_hook(["losa_jax.models", "losa_jax.detection"],
                    "tests.shape_checks.check")


def pytest_collection_finish() -> None:
    """As main.py does: tracing is faster by a fourth."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """Commands change the logger; no other test notices."""
    logger = logging.getLogger("losa_jax")
    level, handlers = logger.level, [*logger.handlers]
    logger.propagate = True
    yield
    logger.setLevel(level)
    for handler in {*logger.handlers} - {*handlers}:
        logger.removeHandler(handler)
        handler.close()


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """Folder of real data and fixtures, from LOSA_SHARED; else skip."""
    value = os.environ.get("LOSA_SHARED", "")
    if not value:
        pytest.skip("LOSA_SHARED is not set: it names the folder of real "
                    "data and numerical fixtures")
    path = pathlib.Path(value)
    if not path.is_dir():
        pytest.fail(f"LOSA_SHARED={value} is not a folder")
    return path


@pytest.fixture(scope="session")
def one_device() -> dict[str, str]:
    """The environment of a process that has one device, as most users do."""
    flags = " ".join(flag for flag in os.environ["XLA_FLAGS"].split()
                     if "device_count" not in flag)
    return {**os.environ, "XLA_FLAGS": flags}


class _Bucket(MemoryFileSystem):
    protocol = "gcs"
    store: dict = {}
    pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("gs://"))


@pytest.fixture
def bucket_objects() -> Iterator[dict]:
    """Replaces buckets by a file system in memory; returns the objects."""
    for name in ("gcs", "gs"):
        fsspec.register_implementation(name, _Bucket, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()
    _Bucket.store.clear()
    yield _Bucket.store
    backend.fsspec_backend._get_filesystem.cache_clear()
