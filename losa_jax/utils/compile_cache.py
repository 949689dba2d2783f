"""JAX's persistent compilation cache, which makes a second start quick.

`main` and `predict` switch it on. LOSA_COMPILE_CACHE names its folder, "off"
switches it off. JAX_COMPILATION_CACHE_DIR has precedence. The folder can be
deleted at any time. `--mode=plan` does not use it, because the time of a
compilation is part of its output.
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

    Returns:
      its folder; None if it is off or JAX's own settings apply.
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


def _default_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(base) if base else Path.home() / ".cache"
    return home / "losa_jax" / "compiled"


def _machine() -> str:
    """Returns a name for the processor model.

    Machines may share a home folder. A program for the CPU uses instructions
    that another model may lack, and JAX's cache key does not include them.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = sorted({line for line in lines
                    if line.startswith(("model name", "flags", "Features"))})
    return hashlib.sha256("\n".join(model).encode()).hexdigest()[:12]
