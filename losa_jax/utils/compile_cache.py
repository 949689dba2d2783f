"""JAX's persistent compilation cache, which makes a second start quick.

LOSA_COMPILE_CACHE names its folder, "off" switches it off, and
JAX_COMPILATION_CACHE_DIR has precedence. The folder can be deleted at any
time.
"""

import hashlib
import logging
import os
from pathlib import Path

import jax

# Programs that compile faster are not worth a file.
_MIN_COMPILE_SECONDS = 0.5
_log = logging.getLogger(__name__)


def use_compile_cache() -> Path | None:
    """Switches the cache on; must be called before anything is compiled.

    Returns its folder; None if it is off or JAX's own settings apply.
    """
    wanted = os.environ.get("LOSA_COMPILE_CACHE", "")
    if wanted == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    if jax.config.values["jax_compilation_cache_dir"]:
        return None
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(wanted or Path(cache, "losa_jax/compiled")) / _machine()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        _log.warning(
            "compiled programs cannot be stored (%s), so every start compiles "
            "them again; set LOSA_COMPILE_CACHE=FOLDER to another folder, or "
            "LOSA_COMPILE_CACHE=off", error)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs",
                      _MIN_COMPILE_SECONDS)
    return folder


def _machine() -> str:
    """Returns a name for the processor model.

    Machines may share a home folder. A program for the CPU uses instructions
    that another model may lack, and JAX's cache key does not include them.
    """
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = sorted({line for line in lines
                    if line.startswith(("model name", "flags", "Features"))})
    return hashlib.sha256("\n".join(model).encode()).hexdigest()[:12]
