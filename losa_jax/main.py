"""The main door: python -m losa_jax.main --config=configs/x.py --workdir=DIR

Exit status: 0 done; 1 the input or the configuration is wrong; 2 usage; 75
stopped by a signal with everything saved, start again to go on.
"""

import logging
import sys
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from losa_jax.errors import InputError

MODES = ("train", "pretrain", "eval", "cache", "check_data", "plan")
EXIT_INPUT, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 75

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe, e.g. configs/quick.py or configs/thumos.py:s; "
    "any key of it can be set with --config.section.key=value.",
    lock_config=True)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run: checkpoints, metrics, predictions. "
    "Default: runs/<name of the config>.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "With --mode=cache: only say what would be written.")
_TOPOLOGY = flags.DEFINE_string(
    "topology", "", "With --mode=plan: chips to compile for, as v5e:4x8 (v4, "
    "v5e, v5p, v6e) or h100:8 (h100, a100; h100:4x8 for four hosts).")
_JSON = flags.DEFINE_string(
    "json", "", "With --mode=plan: a file for its numbers.")
_PLAN_SWEEP = flags.DEFINE_bool(
    "plan_sweep", False, "With --mode=plan: try meshes, chunk_clips, batches "
    "and recomputing, and recommend one.")
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")


def run(argv: list[str]) -> int:
    """Runs the job that the flags ask for; returns the exit status."""
    if len(argv) > 1:
        print(f"unexpected arguments: {' '.join(argv[1:])}", file=sys.stderr)
        return EXIT_USAGE
    _set_up_logging()
    try:
        config = _CONFIG.value
        workdir = Path(_WORKDIR.value or f"runs/{config.name}")
    except OSError:  # ml_collections reports a missing file only here
        print(f"error: --config={_config_path()}: no "
              "such file (the path counts from the current folder)",
              file=sys.stderr)
        return EXIT_INPUT
    # Imported late, so that --help does not wait for jax.
    from losa_jax.jobs.cache import cache
    from losa_jax.jobs.check_data import check_data
    from losa_jax.jobs.evaluate import evaluate
    from losa_jax.jobs.plan import plan
    from losa_jax.jobs.plan_sweep import sweep_plans
    from losa_jax.jobs.pretrain import pretrain
    from losa_jax.jobs.stop import Interrupted
    from losa_jax.jobs.train import train

    def cache_features(config, workdir):
        cache(config, workdir, dry_run=_DRY_RUN.value)

    def plan_config(config, workdir):
        if not _TOPOLOGY.value:
            raise InputError("--mode=plan needs --topology, as v5e:4x8")
        job = sweep_plans if _PLAN_SWEEP.value else plan
        job(config, _TOPOLOGY.value,
            output=Path(_JSON.value) if _JSON.value else None)

    jobs = {"train": train, "pretrain": pretrain, "eval": evaluate,
            "cache": cache_features, "check_data": check_data,
            "plan": plan_config}
    if _DRY_RUN.value and _MODE.value != "cache":
        print("--dry_run goes with --mode=cache", file=sys.stderr)
        return EXIT_USAGE
    try:
        jobs[_MODE.value](config, workdir)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT
    except Interrupted as error:
        print(error, file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _config_path() -> str:
    """The value of --config as it was typed."""
    typed = [argument for argument in sys.argv
             if argument.lstrip("-").startswith("config=")]
    return typed[-1].partition("=")[2] if typed else ""


def _set_up_logging() -> None:
    """Our warnings to the console, all of ours to the run's log.txt."""
    # Orbax tells every step of a save otherwise.
    absl_logging.set_verbosity(absl_logging.ERROR)
    console = logging.StreamHandler()
    console.setLevel(logging.WARNING)
    console.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    ours = logging.getLogger("losa_jax")
    ours.setLevel(logging.INFO)
    ours.propagate = False
    ours.addHandler(console)


def main() -> None:
    flags.mark_flag_as_required("config")
    app.run(lambda argv: sys.exit(run(argv)), flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    """absl's parser; a wrong key or config is one line, not a traceback."""
    try:
        return flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        print(f"error: {error}; see --help", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except (flags.Error, AttributeError, ValueError, OSError) as error:
        # ml_collections puts a whole traceback into its message; the cause
        # stands in its last lines.
        text = str(error).replace("\\n", " ").split("Traceback")[-1]
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        print(f"error: --config: {' '.join(lines[-3:])}", file=sys.stderr)
        sys.exit(EXIT_INPUT)


if __name__ == "__main__":
    main()
