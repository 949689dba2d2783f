"""Trains the variants of a config with several seeds.

Each run is a process with a folder, started with the command that a person
would type. A finished run is not repeated, so the same command continues an
interrupted sweep.
"""

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from losa_jax.distributed.stop_signal import Interrupted
from losa_jax.errors import InputError
from losa_jax.jobs.setup import write_json

# Beside the files of a run: its flags, written when it is finished.
DONE_FILE = "sweep.json"
CONSOLE_FILE = "console.txt"
_INTERRUPTED = 75


@dataclasses.dataclass(frozen=True)
class Variant:
    """A named list of config overrides, such as "adapter.kind=none"."""

    name: str
    overrides: tuple[str, ...]

    @property
    def folder(self) -> str:
        """The name without characters that are unusual in file names."""
        return re.sub(r"[^A-Za-z0-9._=-]+", "_", self.name)


def parse_variant(line: str) -> Variant:
    """Parses "name: key=value key=value"; values have no spaces."""
    name, colon, rest = line.partition(":")
    overrides = tuple(rest.split())
    wrong = [part for part in overrides
             if not re.fullmatch(r"[\w.]+=\S*", part)]
    if not name.strip() or not colon or wrong:
        raise InputError(f"variant {line!r}: write `name: section.key=value "
                         "section.key=value`, values without spaces"
                         + (f"; wrong: {', '.join(wrong)}" if wrong else ""))
    return Variant(name.strip(), overrides)


def read_variants(path: Path) -> list[Variant]:
    """Reads a variant from each line that is not empty or a # comment."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise InputError(f"--variants={path}: cannot be read "
                         f"({error.strerror})") from error
    return [parse_variant(line) for line in map(str.strip, lines)
            if line and not line.startswith("#")]


def run_all(variants: Sequence[Variant], seeds: Sequence[int],
            config_flags: Sequence[str], workdir: Path,
            test_subset: str) -> dict[str, list[Path]]:
    """Trains every variant with every seed; returns successful runs' folders.

    `config_flags` are --config=FILE and overrides for all runs. Each run's
    best checkpoint is scored once on `test_subset`, if it is not "", into the
    folder `test` of the run.

    Raises:
      Interrupted: a run was stopped by a signal.
      InputError: two variants of one name, or a folder of another sweep.
    """
    if len({variant.folder for variant in variants}) < len(variants):
        raise InputError("two variants have the same name: "
                         + ", ".join(variant.name for variant in variants))
    # By seed, so that all variants can be compared early.
    runs = [(variant, seed) for seed in seeds for variant in variants]
    folders: dict[str, list[Path]] = {v.name: [] for v in variants}
    with tqdm(runs, desc="sweep", unit="run") as bar:
        for variant, seed in bar:
            bar.set_postfix_str(f"{variant.name}, seed {seed}")
            folder = workdir / variant.folder / f"seed{seed}"
            flags = [*config_flags,
                     *(f"--config.{part}" for part in variant.overrides),
                     f"--config.seed={seed}"]
            failure = _run_one(flags, folder, test_subset)
            if failure:
                bar.write(failure)
            else:
                folders[variant.name].append(folder)
    return folders


def _run_one(flags: list[str], folder: Path, test_subset: str) -> str:
    """Runs what is not finished; returns the failure, or ""."""
    wanted = {"flags": flags, "test_subset": test_subset}
    done = folder / DONE_FILE
    if done.exists():
        finished = json.loads(done.read_text())
        if finished != wanted:
            raise InputError(
                f"{folder} was run with {finished}, not with {wanted}: name "
                "another --workdir, or delete the folder")
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    console = folder / CONSOLE_FILE
    score = ["--mode=eval", f"--config.data.test_subset={test_subset}",
             f"--output={folder / 'test'}"]
    for more in ([], score) if test_subset else ([],):
        with console.open("a") as output:
            status = subprocess.run(
                [sys.executable, "-m", "losa_jax.main", *flags, *more,
                 f"--workdir={folder}"],
                stdout=output, stderr=subprocess.STDOUT).returncode
        if status == _INTERRUPTED:
            raise Interrupted("stopped; start the same command again to "
                              "continue")
        if status:
            last = console.read_text().strip().splitlines()[-1:]
            return (f"{folder} failed with status {status}: "
                    f"{''.join(last)} (all output: {console})")
    write_json(done, wanted)
    return ""
