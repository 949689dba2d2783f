"""Variants of a config x seeds: every run, then one table.

Each run is a process of its own with a folder of its own, started by the
same command that a person would type; a finished one is not run again, so
an interrupted sweep goes on where it was.
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

# Beside a run's own files: what was run, written when it is through.
DONE_FILE = "sweep.json"
CONSOLE_FILE = "console.txt"
_INTERRUPTED = 75


@dataclasses.dataclass(frozen=True)
class Variant:
    """A named list of config overrides.

    Attributes:
      name: for the table.
      overrides: as on the command line, without "--config.":
        "adapter.kind=none".
    """

    name: str
    overrides: tuple[str, ...]

    @property
    def folder(self) -> str:
        """The name as a folder's."""
        return re.sub(r"[^A-Za-z0-9._=-]+", "_", self.name)


def parse_variant(line: str) -> Variant:
    """"name: key=value key=value" (values without spaces, or none).

    Raises:
      InputError: it is not of this form.
    """
    name, colon, rest = line.partition(":")
    overrides = tuple(rest.split())
    wrong = [part for part in overrides
             if not re.fullmatch(r"[\w.]+=\S*", part)]
    if not name.strip() or not colon or wrong:
        raise InputError(f"variant {line!r}: write `name: section.key=value "
                         "section.key=value`, values without spaces"
                         + (f"; not so: {', '.join(wrong)}" if wrong else ""))
    return Variant(name.strip(), overrides)


def read_variants(path: Path) -> list[Variant]:
    """One a line; empty lines and those with # are passed over."""
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
    """Trains every variant with every seed.

    Args:
      config_flags: --config=FILE and overrides for all of them.
      test_subset: scored once with each run's best checkpoint, into the
        folder `test` of the run; "" for none.

    Returns:
      folders of the runs that went well, by variant.

    Raises:
      Interrupted: a run was stopped by a signal.
      InputError: two variants of one name, or a folder of another sweep.
    """
    if len({variant.folder for variant in variants}) < len(variants):
        raise InputError("two variants have the same name: "
                         + ", ".join(variant.name for variant in variants))
    # Seed by seed: an early look compares all variants.
    runs = [(variant, seed) for seed in seeds for variant in variants]
    folders: dict[str, list[Path]] = {v.name: [] for v in variants}
    with tqdm(runs, desc="sweep", unit="run") as bar:
        for variant, seed in bar:
            bar.set_postfix_str(f"{variant.name}, seed {seed}")
            folder = workdir / variant.folder / f"seed{seed}"
            flags = [*config_flags,
                     *(f"--config.{part}" for part in variant.overrides),
                     f"--config.seed={seed}"]
            if _run_one(flags, folder, test_subset, bar):
                folders[variant.name].append(folder)
    return folders


def _run_one(flags: list[str], folder: Path, test_subset: str, bar: tqdm
             ) -> bool:
    """Whether the run went well."""
    wanted = {"flags": flags, "test_subset": test_subset}
    done = folder / DONE_FILE
    if done.exists():
        found = json.loads(done.read_text())
        if found != wanted:
            raise InputError(
                f"{folder} was run with {found}, asked for {wanted}: name "
                "another --workdir, or delete the folder")
        return True
    folder.mkdir(parents=True, exist_ok=True)
    commands = [flags]
    if test_subset:
        commands.append([
            *flags, "--mode=eval", f"--config.data.test_subset={test_subset}",
            f"--output={folder / 'test'}"])
    for command in commands:
        with (folder / CONSOLE_FILE).open("a") as console:
            status = subprocess.run(
                [sys.executable, "-m", "losa_jax.main", *command,
                 f"--workdir={folder}"],
                stdout=console, stderr=subprocess.STDOUT).returncode
        if status == _INTERRUPTED:
            raise Interrupted("stopped; start the same command again to go "
                              "on")
        if status:
            last = (folder / CONSOLE_FILE).read_text().strip().splitlines()
            bar.write(f"{folder} failed with status {status}: "
                      f"{last[-1] if last else ''} (all of it: "
                      f"{folder / CONSOLE_FILE})")
            return False
    write_json(done, wanted)
    return True
