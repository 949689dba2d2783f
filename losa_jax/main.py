r"""Temporal action localization: what a recipe asks for.

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
folder for losa_jax.predict), check_data (what is wrong with videos and
annotations), plan (memory and time on chips that are not here).

Exit status: 0 done; 1 the input or the configuration is wrong; 2 usage; 75
stopped by a signal with everything saved, start again to go on; 76 another
process of the run was lost, start again to go on from the last checkpoint.
"""

import gc
import logging
import sys
import traceback
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from losa_jax.errors import InputError
from losa_jax.utils import recipes, usage
from losa_jax.utils.malloc import keep_freed_memory
from losa_jax.utils.usage import EXIT_INPUT, EXIT_USAGE

MODES = ("train", "eval", "cache", "extract", "export", "check_data", "plan")
# What several processes can do together.
SHARED_MODES = ("train", "eval", "cache", "extract")
# Flags of one mode alone.
GOES_WITH = {"dry_run": "cache", "transcode": "check_data",
             "topology": "plan", "json": "plan", "plan_sweep": "plan",
             "plan_sweep_minutes": "plan",
             "report": "eval", "report_videos": "eval"}
HELP = {
    "What to do": "config workdir mode",
    "With one mode": " ".join(GOES_WITH),
    "Several processes": "distributed coordinator num_processes process_id",
}
EXIT_INTERRUPTED = 75

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe, e.g. configs/quick.py or configs/thumos.py:s; "
    "any key of it can be set with --config.section.key=value "
    "(configs/common.py explains each).",
    lock_config=True)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run: checkpoints, metrics, predictions; "
    "may be gs://BUCKET/FOLDER. Default: runs/<name of the config>.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "With --mode=cache: only say what would be written.")
_TRANSCODE = flags.DEFINE_string(
    "transcode", "", "With --mode=check_data: a folder for small copies of "
    "the videos, quick to read in training (config.transcode).")
_TOPOLOGY = flags.DEFINE_string(
    "topology", "", "With --mode=plan: chips to compile for, as v5e:4x8 (v4, "
    "v5e, v5p, v6e) or h100:8 (h100, a100; h100:4x8 for four hosts).")
_JSON = flags.DEFINE_string(
    "json", "", "With --mode=plan: a file for its numbers.")
_PLAN_SWEEP = flags.DEFINE_bool(
    "plan_sweep", False, "With --mode=plan: try meshes, chunk_clips, batches "
    "and recomputing, and recommend one.")
_SWEEP_MINUTES = flags.DEFINE_float(
    "plan_sweep_minutes", 0.0, "With --plan_sweep: begin no other choice "
    "after so long, the promising ones come first; 0: all.", lower_bound=0.0)
_REPORT = flags.DEFINE_bool(
    "report", False, "With --mode=eval: pages of videos and of the split, "
    "in WORKDIR/report.")
_REPORT_VIDEOS = flags.DEFINE_integer(
    "report_videos", 200, "With --report: pages of so many videos, half of "
    "them the worst, half the best; 0: of all.", lower_bound=0)
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
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")


def run(argv: list[str]) -> int:
    """Runs the job that the flags ask for; returns the exit status."""
    if len(argv) > 1:
        print(f"unexpected arguments: {' '.join(argv[1:])}", file=sys.stderr)
        return EXIT_USAGE
    for name, mode in GOES_WITH.items():
        flag = flags.FLAGS[name]
        if flag.value != flag.default and _MODE.value != mode:
            print(f"--{name} goes with --mode={mode}", file=sys.stderr)
            return EXIT_USAGE
    _set_up_logging()
    try:
        config = _CONFIG.value
        folder = _WORKDIR.value or f"runs/{config.name}"
    except OSError:  # ml_collections reports a missing file only here
        typed = config_flags.get_config_filename(flags.FLAGS["config"])
        print(f"error: --config={typed}: no "
              "such file (the path counts from the current folder); the "
              f"package has {' '.join(recipes.names())}",
              file=sys.stderr)
        return EXIT_INPUT
    keep_freed_memory()
    # Imported late, so that --help does not wait for jax.
    from losa_jax.distributed import processes, remote_workdir
    if _MODE.value in SHARED_MODES:
        try:
            processes.start(
                distributed=_DISTRIBUTED.value, coordinator=_COORDINATOR.value,
                num_processes=_NUM_PROCESSES.value,
                process_id=_PROCESS_ID.value)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return EXIT_INPUT
        except processes.NotTogether as error:
            print(f"error: {error}", file=sys.stderr)
            return processes.EXIT_LOST
    processes.quiet_unless_first()
    # What imports make stays to the end: looked through for garbage again and
    # again, it was a fourth of the time of tracing a step.
    gc.disable()
    from losa_jax.distributed.stop_signal import Interrupted
    from losa_jax.jobs.cache import cache
    from losa_jax.jobs.check_data import check_data
    from losa_jax.jobs.evaluate import evaluate
    from losa_jax.jobs.export import export
    from losa_jax.jobs.extract import extract
    from losa_jax.jobs.plan import plan
    from losa_jax.jobs.plan_sweep import sweep_plans
    from losa_jax.jobs.train import train
    from losa_jax.jobs.transcode import transcode
    from losa_jax.utils.compile_cache import use_compile_cache
    gc.freeze()
    gc.enable()

    if _MODE.value != "plan":
        use_compile_cache()

    def cache_features(config: ConfigDict, workdir: Path) -> None:
        cache(config, workdir, dry_run=_DRY_RUN.value)

    def evaluate_run(config: ConfigDict, workdir: Path) -> None:
        evaluate(config, workdir, report_pages=(
            _REPORT_VIDEOS.value if _REPORT.value else None))

    def plan_config(config: ConfigDict, workdir: Path) -> None:
        if not _TOPOLOGY.value:
            raise InputError("--mode=plan needs --topology, as v5e:4x8")
        output = Path(_JSON.value) if _JSON.value else None
        if _PLAN_SWEEP.value:
            sweep_plans(config, _TOPOLOGY.value, output=output,
                        max_minutes=_SWEEP_MINUTES.value)
        else:
            plan(config, _TOPOLOGY.value, output=output)

    def check(config: ConfigDict, workdir: Path) -> None:
        check_data(config, workdir)
        if _TRANSCODE.value:
            transcode(config, workdir, Path(_TRANSCODE.value))

    jobs = {"train": train, "eval": evaluate_run,
            "cache": cache_features, "extract": extract,
            "export": export, "check_data": check, "plan": plan_config}
    status, message, workdir = 0, "", None
    try:
        workdir = remote_workdir.local_folder(folder)
        jobs[_MODE.value](config, workdir)
    except InputError as error:
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


def _set_up_logging() -> None:
    """Our warnings to the console, all of ours to the run's log.txt."""
    # Orbax tells every step of a save otherwise, and each error thrice.
    absl_logging.set_verbosity(absl_logging.FATAL)
    console = logging.StreamHandler()
    console.setLevel(logging.WARNING)
    console.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    ours = logging.getLogger("losa_jax")
    ours.setLevel(logging.INFO)
    ours.propagate = False
    ours.addHandler(console)


def main() -> None:
    """The command line."""
    app.run(lambda argv: sys.exit(run(argv)),
            flags_parser=lambda argv: usage.parse(argv, __doc__ or "", HELP))


if __name__ == "__main__":
    main()
