r"""Temporal action localization: runs a recipe.

usage: python -m losa_jax.main --config=RECIPE[:VARIANT] [--workdir=DIR]
           [--mode=MODE] [--config.SECTION.KEY=VALUE ...]

    python -m losa_jax.main --config=configs/quick.py
    python -m losa_jax.main --config=configs/thumos.py:s --workdir=runs/s \
        --config.data.annotations=thumos14.json --config.data.videos=videos \
        --config.backbone.checkpoint=backbones/vit_small
    python -m losa_jax.main --config=configs/thumos.py:s --workdir=runs/s \
        ...the same --config flags... --mode=eval --report

Modes: train (the default; evaluates on the way and resumes), eval, cache
(features of the frozen backbone), extract (features as .npy files), export (a
folder for losa_jax.predict), check_data (faults of videos or features, and of
annotations), plan (memory and time on chips that are not here).

Exit status: 0 done; 1 the input or the configuration is wrong; 2 usage; 75
stopped by a signal with everything saved, start again to continue; 76 another
process of the run was lost, start again to continue from the last checkpoint.
"""

import functools
import gc
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

import losa_jax
from losa_jax.errors import InputError
from losa_jax.utils import usage
from losa_jax.utils.command_line import show_warnings
from losa_jax.utils.interrupt import (
    EXIT_INTERRUPTED,
    Interrupted,
    exit_with,
)
from losa_jax.utils.malloc import keep_freed_memory
from losa_jax.utils.usage import EXIT_INPUT, EXIT_USAGE

MODES = ("train", "eval", "cache", "extract", "export", "check_data", "plan")
# The modes that several processes can run together.
SHARED_MODES = ("train", "eval", "cache", "extract")
# The modes that a flag belongs to.
GOES_WITH = {
    "checkpoint": ("eval", "extract", "export"),
    "output": ("eval", "extract", "export"),
    "report": ("eval",), "report_videos": ("eval",), "pair_with": ("eval",),
    "dry_run": ("cache",),
    "features": ("extract",), "stride_frames": ("extract",),
    "fps": ("extract",), "dtype": ("extract",),
    "normalization": ("extract",),
    "platforms": ("export",),
    "topology": ("plan",), "json": ("plan",),
}
# The flag that a mode requires.
NEEDS = {"extract": "output", "plan": "topology"}
HELP = {
    "What to do": "config workdir mode",
    "With some modes": " ".join(GOES_WITH),
    "Several processes": "distributed coordinator num_processes process_id",
}

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe, e.g. configs/quick.py or configs/thumos.py:s; "
    "any key of it can be set with --config.section.key=value "
    "(configs/common.py explains each).",
    lock_config=True)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run: checkpoints, metrics, predictions; "
    "may be gs://BUCKET/FOLDER. Default: runs/<name of the config>.")
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "best", ("best", "last"), "eval, export, extract: which "
    "checkpoint of the run; best is by mAP.")
_OUTPUT = flags.DEFINE_string(
    "output", "", "extract: folder for the files (required). export: default "
    "WORKDIR/export. eval: default WORKDIR.")
_REPORT = flags.DEFINE_bool(
    "report", False, "eval: pages of videos and of the split, in the folder "
    "report of the output.")
_REPORT_VIDEOS = flags.DEFINE_integer(
    "report_videos", 200, "eval --report: number of videos with a page, half "
    "of them the worst, half the best; 0: all.", lower_bound=0)
_PAIR_WITH = flags.DEFINE_string(
    "pair_with", "", "eval: folder of a run of nouns; its classes and the "
    "verbs of this run are paired to the actions of EPIC-KITCHENS-100.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "cache: only print what would be written.")
_FEATURES = flags.DEFINE_enum(
    "features", "clips", ("clips", "last", "adapted"), "extract: clips is "
    "one vector a clip, by the backbone alone, as VideoMAEv2's features were "
    "made; last is one a token of the run's windows, by the backbone alone; "
    "adapted is what the head of the run in WORKDIR reads.")
_STRIDE_FRAMES = flags.DEFINE_integer(
    "stride_frames", 4, "extract clips: frames from one clip to the next.",
    lower_bound=1)
_FPS = flags.DEFINE_float(
    "fps", 0.0, "extract clips: frames a second to read; 0: the video's own.",
    lower_bound=0.0)
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ("float32", "float16"), "extract: of the files.")
_NORMALIZATION = flags.DEFINE_enum(
    "normalization", "imagenet", ("imagenet", "zero_one"), "extract clips: "
    "imagenet mean and deviation, as the weights were trained, or zero_one, "
    "as VideoMAEv2's published features were made.")
_PLATFORMS = flags.DEFINE_list(
    "platforms", ["cpu", "tpu", "cuda"], "export: where the folder can run.")
_TOPOLOGY = flags.DEFINE_string(
    "topology", "", "plan: chips to compile for, as v5e:4x8 (v4, v5e, v5p, "
    "v6e) or h100:8 (h100, a100; h100:4x8 for four hosts).")
_JSON = flags.DEFINE_string("json", "", "plan: a file for its numbers.")
_DISTRIBUTED = flags.DEFINE_enum(
    "distributed", "auto", ("auto", "on", "off"), "Several processes, one a "
    "host: what is not given below is taken from the environment (TPU pod, "
    "Slurm, MPI). auto: where it shows several.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "HOST:PORT of process 0, which listens there.")
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", 0, "Processes of the run.")
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", -1, "This process's number, from 0.")


def run(argv: list[str]) -> int:
    """Runs the job that the flags ask for; returns the exit status."""
    mode = _MODE.value
    if len(argv) > 1:
        usage.stop(f"unexpected arguments: {' '.join(argv[1:])}", EXIT_USAGE)
    for name, modes in GOES_WITH.items():
        if flags.FLAGS[name].present and mode not in modes:
            usage.stop(f"--{name} goes with " + " or ".join(
                f"--mode={one}" for one in modes), EXIT_USAGE)
    needed = NEEDS.get(mode)
    if needed and not flags.FLAGS[needed].value:
        usage.stop(f"--mode={mode} needs --{needed}", EXIT_USAGE)
    _set_up_logging()
    config = _CONFIG.value
    folder = _WORKDIR.value or f"runs/{config.name}"
    keep_freed_memory()
    # Imported late, so that --help does not wait for jax.
    from losa_jax.distributed import processes, remote_workdir
    if mode in SHARED_MODES:
        try:
            processes.start(
                distributed=_DISTRIBUTED.value, coordinator=_COORDINATOR.value,
                num_processes=_NUM_PROCESSES.value,
                process_id=_PROCESS_ID.value)
        except InputError as error:
            usage.stop(str(error), EXIT_INPUT)
        except processes.NotTogether as error:
            usage.stop(str(error), processes.EXIT_LOST)
    processes.quiet_unless_first()
    # Modules live until the end. Without this the garbage collector scans
    # them again and again, a fourth of the time of tracing a step.
    gc.disable()
    job = _job(mode)
    gc.freeze()
    gc.enable()

    status, message, workdir = 0, "", None
    try:
        workdir = remote_workdir.local_folder(folder)
        job(config, workdir)
    except (InputError, OSError) as error:
        if not isinstance(error, InputError):  # where is in log.txt
            logging.getLogger("losa_jax").info("", exc_info=error)
        status, message = EXIT_INPUT, f"error: {error}"
        print(message, file=sys.stderr)
    except Interrupted as error:
        status, message = EXIT_INTERRUPTED, str(error)
        print(message, file=sys.stderr)
    except BaseException as error:
        if processes.count() == 1:
            raise
        if processes.is_loss(error):
            processes.leave_lost(error)
        # The usual way out would wait for the others.
        traceback.print_exc()
        status, message = EXIT_INPUT, repr(error)
    if workdir is not None:
        remote_workdir.copy_back(workdir)
        if "://" in folder:
            print(f"copied from {workdir} to {folder}")
    if status:
        processes.fail(status, message)
    processes.finish()
    return status


def _job(mode: str) -> Callable[[ConfigDict, Path], object]:
    """Imports all jobs and returns that of a mode, with its flags."""
    from losa_jax.jobs.cache import cache
    from losa_jax.jobs.check_data import check_data
    from losa_jax.jobs.evaluate import evaluate
    from losa_jax.jobs.export import export
    from losa_jax.jobs.extract import ExtractSettings, extract
    from losa_jax.jobs.plan import plan
    from losa_jax.jobs.train import train
    from losa_jax.utils.compile_cache import use_compile_cache

    if mode != "plan":  # which measures the time of a compilation
        use_compile_cache()
    output = Path(_OUTPUT.value) if _OUTPUT.value else None
    jobs: dict[str, Callable[[ConfigDict, Path], object]] = {
        "train": train,
        "eval": functools.partial(
            evaluate, which=_CHECKPOINT.value, output=output,
            report_pages=_REPORT_VIDEOS.value if _REPORT.value else None,
            pair_with=Path(_PAIR_WITH.value) if _PAIR_WITH.value else None),
        "cache": functools.partial(cache, dry_run=_DRY_RUN.value),
        "extract": functools.partial(extract, settings=ExtractSettings(
            Path(_OUTPUT.value), _FEATURES.value, _CHECKPOINT.value,
            _STRIDE_FRAMES.value, _FPS.value, _DTYPE.value,
            _NORMALIZATION.value)),
        "export": functools.partial(
            export, output=output, which=_CHECKPOINT.value,
            platforms=tuple(_PLATFORMS.value)),
        "check_data": check_data,
        "plan": lambda config, workdir: plan(
            config, _TOPOLOGY.value, workdir=workdir,
            output=Path(_JSON.value) if _JSON.value else None),
    }
    return jobs[mode]


def _set_up_logging() -> None:
    """Shows our warnings on the console; jobs add the run's log.txt."""
    # Orbax logs every step of a save, and each error three times.
    absl_logging.set_verbosity(absl_logging.FATAL)
    show_warnings()


def main() -> int:
    """Runs the command line."""
    if {"--version", "-version"} & set(sys.argv[1:]):
        print(losa_jax.__version__)
        return 0
    app.run(lambda argv: sys.exit(run(argv)),
            flags_parser=lambda argv: usage.parse(argv, __doc__ or "", HELP))
    return 0


if __name__ == "__main__":
    exit_with(main)
