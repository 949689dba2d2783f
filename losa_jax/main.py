"""The main door: python -m losa_jax.main --config=configs/x.py --workdir=DIR

Exit status: 0 done; 1 the input or the configuration is wrong; 2 usage; 75
stopped by a signal with everything saved, start again to go on; 76 another
process of the run was lost, start again to go on from the last checkpoint.
"""

import logging
import sys
import traceback
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from losa_jax.errors import InputError

MODES = ("train", "pretrain", "eval", "cache", "extract", "export",
         "check_data", "plan")
# What several processes can do together.
SHARED_MODES = ("train", "pretrain", "eval", "cache", "extract")
EXIT_INPUT, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 75

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe, e.g. configs/quick.py or configs/thumos.py:s; "
    "any key of it can be set with --config.section.key=value.",
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
    _set_up_logging()
    try:
        config = _CONFIG.value
        folder = _WORKDIR.value or f"runs/{config.name}"
    except OSError:  # ml_collections reports a missing file only here
        print(f"error: --config={_config_path()}: no "
              "such file (the path counts from the current folder)",
              file=sys.stderr)
        return EXIT_INPUT
    # Imported late, so that --help does not wait for jax.
    from losa_jax.training import bucket, processes
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
    from losa_jax.jobs.cache import cache
    from losa_jax.jobs.check_data import check_data
    from losa_jax.jobs.evaluate import evaluate
    from losa_jax.jobs.export import export
    from losa_jax.jobs.extract import extract
    from losa_jax.jobs.plan import plan
    from losa_jax.jobs.plan_sweep import sweep_plans
    from losa_jax.jobs.pretrain import pretrain
    from losa_jax.jobs.stop import Interrupted
    from losa_jax.jobs.train import train
    from losa_jax.jobs.transcode import transcode

    def pretrain_alone(config, workdir):
        with processes.first_goes_first("pretrain"):
            if processes.is_first():
                pretrain(config, workdir)

    def cache_features(config, workdir):
        cache(config, workdir, dry_run=_DRY_RUN.value)

    def evaluate_run(config, workdir):
        evaluate(config, workdir, report_pages=(
            _REPORT_VIDEOS.value if _REPORT.value else None))

    def plan_config(config, workdir):
        if not _TOPOLOGY.value:
            raise InputError("--mode=plan needs --topology, as v5e:4x8")
        output = Path(_JSON.value) if _JSON.value else None
        if _PLAN_SWEEP.value:
            sweep_plans(config, _TOPOLOGY.value, output=output,
                        max_minutes=_SWEEP_MINUTES.value)
        else:
            plan(config, _TOPOLOGY.value, output=output)

    def check(config, workdir):
        check_data(config, workdir)
        if _TRANSCODE.value:
            transcode(config, workdir, Path(_TRANSCODE.value))

    jobs = {"train": train, "pretrain": pretrain_alone, "eval": evaluate_run,
            "cache": cache_features, "extract": extract,
            "export": export, "check_data": check, "plan": plan_config}
    if _REPORT.value and _MODE.value != "eval":
        print("--report goes with --mode=eval (python -m losa_jax.report "
              "WORKDIR shows a training run)", file=sys.stderr)
        return EXIT_USAGE
    if _DRY_RUN.value and _MODE.value != "cache":
        print("--dry_run goes with --mode=cache", file=sys.stderr)
        return EXIT_USAGE
    if _TRANSCODE.value and _MODE.value != "check_data":
        print("--transcode goes with --mode=check_data", file=sys.stderr)
        return EXIT_USAGE
    status, message, workdir = 0, "", None
    try:
        workdir = bucket.local_folder(folder)
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
        bucket.copy_back(workdir)
        if "://" in folder:
            print(f"copied from {workdir} to {folder}")
    if status:
        processes.fail(status, message)
    processes.finish()
    return status


def _config_path() -> str:
    """The value of --config as it was typed."""
    typed = [argument for argument in sys.argv
             if argument.lstrip("-").startswith("config=")]
    return typed[-1].partition("=")[2] if typed else ""


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
