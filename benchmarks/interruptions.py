"""Ends jobs by signals at random moments and compares what they write.

    python -m benchmarks.interruptions [--kills=20] [--terms=20] [--seed=0]
        [--jobs=train,eval,cache,predict] [--processes=1,4]

Each job (training with evaluations, evaluation, caching, prediction) runs once
undisturbed by one process and by four. Then it is started again and again: at
a random moment of its usual time, SIGKILL ends one of its processes or SIGTERM
is sent to all; it is started once more on what is there, and its next signal
follows, until the signals are used up. What it finally writes must be what the
undisturbed one wrote, each process that got SIGTERM must end with 75 or 0, and
the others of a prediction must finish all videos when one is killed. Exit
status 1 where that is not so.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.figures import table
from losa_jax.utils.interrupt import EXIT_INTERRUPTED

LIMIT_SECONDS = 600  # a process that takes longer hangs


@dataclasses.dataclass(frozen=True)
class Job:
    """A command that can be started again on what it has written."""

    command: tuple[str, ...]
    output: str  # in the scratch folder, FOLDER in the command
    results: tuple[str, ...]  # files under it that are compared
    # Its processes are one program; else they only share the output.
    connected: bool = True
    copied: str = ""  # a finished run that is copied into it at first


def _jobs(scratch: Path) -> dict[str, Job]:
    data = scratch / "data"
    recipe = (
        "losa_jax.main", "--config=configs/quick.py", "--workdir=FOLDER/run",
        f"--config.synthetic.folder={data}",
        "--config.synthetic.num_training=6",
        "--config.synthetic.num_testing=6",
        f"--config.data.annotations={data}/untrimmed/annotations.json",
        f"--config.data.videos={data}/untrimmed/videos",
        "--config.window.samples=128", "--config.window.tokens=64",
        "--config.train.epochs=3", "--config.train.schedule_epochs=3",
        "--config.train.warmup_epochs=1",
        "--config.train.evaluate_from_epoch=1",
        "--config.train.evaluate_every_epochs=1")
    return {
        "train": Job(recipe, "train", ("run/map.json", "run/predictions.json",
                                       "run/thresholds.json")),
        "eval": Job((*recipe, "--mode=eval"), "eval",
                    ("run/map.json", "run/predictions.json"),
                    copied="train_1/run"),
        "cache": Job((*recipe, "--mode=cache",
                      "--config.window.align_to_clips=True",
                      "--config.data.cache=FOLDER/cache"), "cache",
                     ("cache/**/*",)),
        "predict": Job(
            ("losa_jax.predict", f"{data}/untrimmed/videos",
             f"--checkpoint={scratch}/train_1/run", "--output=FOLDER",
             "--report"),
            "predict", ("predictions.json", "*.csv"), connected=False),
    }


def _start(job: Job, folder: Path, count: int) -> list[subprocess.Popen]:
    command = [part.replace("FOLDER", str(folder)) for part in job.command]
    if count > 1 and job.connected:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command += [f"--coordinator=127.0.0.1:{port}",
                    f"--num_processes={count}"]
    folder.mkdir(parents=True, exist_ok=True)
    if job.copied and not (folder / "run").exists():
        shutil.copytree(folder.parent / job.copied, folder / "run")
        for name in ("map.json", "predictions.json"):
            (folder / "run" / name).unlink()
    started = []
    for number in range(count):
        own = [f"--process_id={number}"] if (
            count > 1 and job.connected) else []
        with open(folder / f"log_{number}.txt", "a") as log:
            started.append(subprocess.Popen(
                [sys.executable, "-m", *command, *own], stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "JAX_COMPILATION_CACHE_DIR":
                     str(folder.parent / "compiled")}))
    return started


def _wait(processes: Sequence[subprocess.Popen]) -> list[int]:
    """Returns the exit statuses; a process that hangs is killed."""
    codes = []
    for one in processes:
        try:
            codes.append(one.wait(LIMIT_SECONDS))
        except subprocess.TimeoutExpired:
            one.kill()
            codes.append(one.wait())
            raise SystemExit(f"a process hangs: {one.args}") from None
    return codes


def _results(job: Job, folder: Path) -> dict[str, str]:
    """Returns a hash of each file that is compared."""
    files = sorted({path for pattern in job.results
                    for path in folder.glob(pattern) if path.is_file()})
    return {str(path.relative_to(folder)): hashlib.sha256(
        path.read_bytes()).hexdigest()[:16] for path in files}


def _disturb(job: Job, scratch: Path, count: int, signals: list[signal.Signals],
             seconds: float, wanted: dict[str, str], rng: random.Random
             ) -> list[str]:
    """Uses up the signals; returns what was not as it should be."""
    folder = scratch / f"{job.output}_{count}_disturbed"
    faults: list[str] = []
    waiting = list(signals)
    while True:
        processes = _start(job, folder, count)
        sent = waiting.pop() if waiting else None
        if sent is not None:
            moment = rng.uniform(0, seconds)
            time.sleep(moment)
            targets = processes if sent == signal.SIGTERM else [
                rng.choice(processes)]
            for one in targets:
                if one.poll() is None:
                    one.send_signal(sent)
        codes = _wait(processes)
        name = f"{job.output}, {count} processes"
        if sent is not None:
            print(f"{name}: {sent.name} after {moment:.1f} s: {codes}",
                  flush=True)
            if sent == signal.SIGTERM and not {*codes} <= {
                    0, EXIT_INTERRUPTED}:
                faults.append(f"{name}: SIGTERM after {moment:.1f} s: {codes}")
            survivors = [code for one, code in zip(processes, codes,
                                                   strict=True)
                         if one not in targets]
            if not job.connected and any(survivors):
                faults.append(f"{name}: SIGKILL after {moment:.1f} s: {codes}")
            if survivors and not job.connected and (
                    _results(job, folder) != wanted):
                faults.append(f"{name}: the others did not do everything")
        elif any(codes):
            faults.append(f"{name}: undisturbed start ended with {codes}")
        if not any(codes):  # ended
            got = _results(job, folder)
            if got != wanted:
                other = {path for path in got.keys() | wanted.keys()
                         if got.get(path) != wanted.get(path)}
                faults.append(f"{name}: other results: {sorted(other)[:5]}")
        if faults or (sent is None):
            if not faults:
                shutil.rmtree(folder)
            return faults
        if not any(codes):
            shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--terms", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", default="train,eval,cache,predict")
    parser.add_argument("--processes", default="1,4")
    parser.add_argument("--scratch", type=Path, default=None,
                        help="kept; default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        return _run(arguments, arguments.scratch or Path(temporary))


def _run(arguments: argparse.Namespace, scratch: Path) -> int:
    rng = random.Random(arguments.seed)
    jobs = _jobs(scratch)
    cases = [(name, int(count)) for name in arguments.jobs.split(",")
             for count in arguments.processes.split(",")]
    # Shared out evenly, in a random order.
    shares: list[list[signal.Signals]] = [[] for _ in cases]
    for number in range(arguments.kills):
        shares[number % len(cases)].append(signal.SIGKILL)
    for number in range(arguments.terms):
        shares[-1 - number % len(cases)].append(signal.SIGTERM)
    rows, faults = [], []
    # Renders the videos, compiles, and gives `predict` its run.
    if any(_wait(_start(jobs["train"], scratch / "train_1", 1))):
        raise SystemExit(f"training fails: {scratch}/train_1/log_0.txt")
    for (name, count), signals in zip(cases, shares, strict=True):
        job, folder = jobs[name], scratch / f"{name}_{count}_whole"
        started = time.perf_counter()
        if any(codes := _wait(_start(job, folder, count))):
            raise SystemExit(f"{name}: {codes}, see {folder}")
        seconds = time.perf_counter() - started
        rng.shuffle(signals)
        new = _disturb(job, scratch, count, signals, seconds,
                       _results(job, folder), rng)
        faults += new
        rows.append((name, count, f"{seconds:.1f}",
                     signals.count(signal.SIGKILL),
                     signals.count(signal.SIGTERM), "; ".join(new) or "equal"))
    print(table(["job", "processes", "seconds undisturbed", "SIGKILLs",
                 "SIGTERMs", "results"], rows))
    print(json.dumps({"faults": faults}))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
