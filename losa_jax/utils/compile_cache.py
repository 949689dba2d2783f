"""Compiled programs are kept, so that the second start of a run is quick.

JAX's persistent compilation cache, on by default in `main` and `predict`.
LOSA_COMPILE_CACHE names its folder, "off" switches it off; whoever sets
JAX_COMPILATION_CACHE_DIR has chosen already. The folder can be deleted at any
time. `--mode=plan` does without it: it reads the compiler's own text.
"""

import hashlib
import logging
import os
from pathlib import Path

import jax

# What compiles faster than this is not worth a file.
_MIN_COMPILE_SECONDS = 0.5
_log = logging.getLogger(__name__)


def use_compile_cache() -> Path | None:
    """Switches the cache on for this process. Call before compiling.

    Returns:
      its folder; None if it is off, or JAX's own settings hold.
    """
    wanted = os.environ.get("LOSA_COMPILE_CACHE", "")
    if wanted == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    if jax.config.values["jax_compilation_cache_dir"]:
        return None
    try:
        root = Path(wanted) if wanted else _default_folder()
        folder = root / _machine()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # the latter: no home folder
        _log.warning(
            "compiled programs cannot be kept (%s): every start compiles "
            "anew; LOSA_COMPILE_CACHE=FOLDER names another place, "
            "LOSA_COMPILE_CACHE=off does without", error)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs",
                      _MIN_COMPILE_SECONDS)
    return folder


def _default_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(base) if base else Path.home() / ".cache"
    return home / "losa_jax" / "compiled"


def _machine() -> str:
    """Names the kind of processor: a home folder may serve several.

    A program for the host's processor uses instructions that another one
    may not have, and JAX's own key does not hold them.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    told = sorted({line for line in lines
                   if line.startswith(("model name", "flags", "Features"))})
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]
