"""Deliberate faults in the core, one at a time: do the tests see them?

    python -m benchmarks.mutation_check [--only=1-4] [--whole] \
        [--results=FILE] [--table=FILE]

Copies the tracked files to a scratch folder, puts one fault of
benchmarks/common/mutation_faults.py into the copy, and runs the tests that
should see it until the first one fails; with --whole, all others too if none
does. Before, the same tests run on the sound copy, so that a test that fails
anyway sees nothing; --no_sound leaves that out.

Results are added to --results (JSON), so that a check can be made in parts;
--table is the markdown table of all of them. Exit status 1 if fewer than 19
of 20 were seen, 2 if a fault no longer fits the code.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from benchmarks.common.mutation_faults import FAULTS, Fault

ROOT = Path(__file__).parent.parent
# Of the faults, how many the tests must see.
WANTED_SHARE = 0.95
# A fault may make a loop endless.
LIMIT_SECONDS = 900
FAILED = 1  # pytest: tests ran, and some failed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=f"1-{len(FAULTS)}",
                        help="numbers of faults, as 1-4 or 3,7")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--no_sound", action="store_true")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    stale = [line for fault in FAULTS if (line := misfit(fault))]
    if stale:
        print("the table of faults is stale:", *stale, sep="\n  ")
        sys.exit(2)
    chosen = numbers(arguments.only)
    path = arguments.results
    results = json.loads(path.read_text()) if path and path.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy"
        copy_tree(copy)
        if not arguments.no_sound:
            tests = dict.fromkeys(test for number in chosen
                                  for test in FAULTS[number - 1].tests)
            status, first = run_tests(copy, tuple(tests))
            if status:
                sys.exit(f"without any fault {first} fails (status "
                         f"{status}): mend that first")
        for number in tqdm(chosen, desc="faults", unit="fault"):
            fault = FAULTS[number - 1]
            results[fault.what] = check(copy, fault, arguments.whole)
            if path:
                store(path, results)
    rows = [(number, fault, results[fault.what])
            for number, fault in enumerate(FAULTS, 1)
            if fault.what in results]
    table = markdown(rows)
    print(table)
    if arguments.table:
        arguments.table.write_text(table + "\n")
    seen = sum(bool(result["seen_by"]) for *_, result in rows)
    sys.exit(int(seen < WANTED_SHARE * len(rows)))


def numbers(text: str) -> list[int]:
    """"1-3,7" to [1, 2, 3, 7]."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    wrong = [number for number in numbers if not 1 <= number <= len(FAULTS)]
    if wrong:
        sys.exit(f"--only={text}: there are faults 1 to {len(FAULTS)}")
    return numbers


def misfit(fault: Fault) -> str:
    """Why a fault cannot be put into the code, or ""."""
    content = (ROOT / fault.path).read_text()
    count = content.count(fault.text)
    if count != 1:
        return f"{fault.what}: {fault.path} has its text {count} times"
    missing = [test for test in fault.tests
               if not (ROOT / test.partition("::")[0]).is_file()]
    if missing:
        return f"{fault.what}: no {', '.join(missing)}"
    compile(content.replace(fault.text, fault.slip), fault.path, "exec")
    return ""


def copy_tree(copy: Path) -> None:
    """The working tree's tracked and new files, as they are now."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others",
         "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
        check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)


def check(copy: Path, fault: Fault, whole: bool) -> dict[str, object]:
    """Puts a fault into the copy, runs its tests, takes it out again."""
    path = copy / fault.path
    sound = path.read_text()
    path.write_text(sound.replace(fault.text, fault.slip))
    started = time.perf_counter()
    try:
        status, first = run_tests(copy, fault.tests)
        if not status and whole:
            status, first = run_tests(copy, ("tests",))
    finally:
        path.write_text(sound)
    if status not in (0, FAILED):
        sys.exit(f"{fault.what}: pytest ended with {status} ({first}), which "
                 "says nothing about the tests")
    return {"seen_by": first,
            "seconds": round(time.perf_counter() - started, 1)}


def run_tests(copy: Path, tests: Sequence[str]) -> tuple[int, str]:
    """(pytest's exit status, the first test that failed, or "")."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE",
               "--tb=no", "-p", "no:cacheprovider", *tests]
    # Compiled files are told apart by time and size, which two faults of
    # one second may share.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=copy, env=environment, text=True,
                              capture_output=True, timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        return FAILED, f"the time limit of {LIMIT_SECONDS} s"
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    first = failed[1] if failed else ""
    if done.returncode and not first:
        first = (done.stdout + done.stderr)[-300:]
    return done.returncode, first


def store(path: Path, results: dict[str, object]) -> None:
    """Writes to a temporary name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1))
    temporary.replace(path)


def markdown(rows: Sequence[tuple[int, Fault, dict]]) -> str:
    """The table of what was seen by which test."""
    lines = ["| | fault | in | seen by | s |",
             "| --- | --- | --- | --- | --- |"]
    for number, fault, result in rows:
        path = fault.path.removeprefix("losa_jax/")
        seen_by = result["seen_by"].removeprefix("tests/")
        lines.append(
            f"| {number} | {fault.what} | {path} | "
            f"{seen_by.replace('|', ' ') or '**nobody**'} | "
            f"{result['seconds']:.0f} |")
    seen = sum(bool(result["seen_by"]) for *_, result in rows)
    return "\n".join([*lines, "", f"{seen} of {len(rows)} faults seen."])


if __name__ == "__main__":
    main()
