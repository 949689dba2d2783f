"""All benchmarks, one after the other, into benchmarks/RESULTS.md.

    python -m benchmarks.run_all [--only=losa_speed,scaling] [--quick]

Each runs in a process of its own; what it prints is captured and becomes its
section, with the command, the machine, versions, date and revision. With
--only the other sections of an existing file stay as they are. A benchmark
that fails is reported with its last line and the others go on; the exit
status is then 1. --quick takes fewer rounds and smaller sizes, and says so.
What needs a package that is missing (extras `torch`, `bench`, `dev`, or what
its docstring says to install) is skipped and says so.
"""

import argparse
import contextlib
import dataclasses
import datetime
import importlib.metadata
import importlib.util
import math
import os
import platform
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tqdm import tqdm

RESULTS = Path(__file__).with_name("RESULTS.md")
ROOT = RESULTS.parent.parent
LIMIT_SECONDS = 7200
PACKAGES = ("jax", "jaxlib", "numpy", "torch", "transformers")
TITLE = """# Benchmark results

Written by `python -m benchmarks.run_all`, not by hand; each file in
`benchmarks/` says what it measures. Medians come with the smallest and the
largest; a ratio is the median of the rounds' ratios. "Other work" is how many
cores were busy with other processes, on average, while a benchmark ran: where
that is a core or more, ratios between programs of several threads say little.
"""
SKIPPED = "skipped:"
_FAILED = "**FAILED**"


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One module of this folder.

    Attributes:
      name: of the module.
      arguments, quick: of a full and of a quick run.
      needs: modules without which it is skipped.
      package: that the module is in.
    """

    name: str
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    package: str = "benchmarks"

    def command(self, is_quick: bool) -> list[str]:
        """What follows the interpreter."""
        module = f"{self.package}.{self.name}" if self.package else self.name
        return ["-m", module, *(self.quick if is_quick else self.arguments)]


BENCHMARKS = (
    Benchmark("losa_speed", (), ("--rounds=3",), ("torch", "transformers")),
    Benchmark("losa_parts", (), ("--rounds=3",), ("torch", "transformers")),
    Benchmark("backbone_speed", (), ("--backbone=vit_s", "--rounds=3"),
              ("torch",)),
    Benchmark("vjepa2_speed", (), ("--depth=1", "--rounds=2"),
              ("torch", "transformers")),
    Benchmark("videoprism_speed", (), ("--depth=2", "--rounds=2"),
              ("videoprism",)),
    Benchmark("adapter_speed", (), ("--rounds=3",)),
    Benchmark("head_speed", (), ("--rounds=2",), ("torch",)),
    Benchmark("start_speed", (), ("--rounds=1",)),
    Benchmark("scaling", (), ("--rounds=2",)),
    # What there is on this machine; on a CPU a tiny model.
    Benchmark("accelerator", (), ("--minutes=1",)),
    # By hand: benchmarks.rehearsal, which needs THUMOS' annotations, and the
    # large ones, which take an hour.
    Benchmark("adapter_memory", ("--backbones=vit_s,vit_b",),
              ("--backbones=vit_s", "--adapters=none,losa,full")),
    Benchmark("cache_speed", ("--gestures",), ("--gestures", "--rounds=1")),
    Benchmark("pipeline_speed", (), ("--rounds=1",), ("psutil",)),
    Benchmark("pipeline_memory", (), ("--windows=400",), ("psutil",)),
    Benchmark("predict_speed", (), ("--rounds=1",)),
    Benchmark("archive", (), ("--videos=12",)),
    Benchmark("predict_memory", ("--minutes=5,60",), ("--minutes=1,10",)),
    Benchmark("evaluation_overlap"),
    Benchmark("review_page", (), ("--rounds=1",), ("playwright",)),
    Benchmark("augment_speed", (), ("--rounds=2",)),
    Benchmark("nms_speed", (), ("--rounds=5",)),
    Benchmark("score_speed", (), ("--predictions=20000",), ("pandas",)),
    Benchmark("convert_memory", (), ("--backbone=vit_b",)),
    Benchmark("interruptions", (), ("--kills=2", "--terms=2",
                                    "--processes=1")),
    Benchmark("mutated_videos", ("--files=300",), ("--files=50",)),
    Benchmark("mutated_features", (), ("--files=50",)),
)


def main() -> int:
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="",
                        help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    wanted = arguments.only.split(",") if arguments.only else names
    if unknown := sorted(set(wanted) - set(names)):
        parser.error(f"--only={','.join(unknown)}: the benchmarks are "
                     f"{', '.join(names)}")
    # Not to leave a benchmark behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    failed = run([benchmark for benchmark in BENCHMARKS
                  if benchmark.name in wanted], arguments.output,
                 is_quick=arguments.quick)
    print(f"wrote {arguments.output}" + (
        f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def run(benchmarks: Iterable[Benchmark], output: Path, *, is_quick: bool
        ) -> list[str]:
    """Runs them and puts each one's section into the file as it ends.

    Returns:
      names of those that failed.
    """
    benchmarks, failed = list(benchmarks), []
    with tqdm(benchmarks, unit="benchmark") as bar:
        for benchmark in bar:
            bar.set_description(benchmark.name)
            text, ok = measure(benchmark, is_quick)
            if not ok:
                failed.append(benchmark.name)
                bar.write(f"{benchmark.name} failed")
            # Read again each time: another run may have written meanwhile.
            sections = (read_sections(output.read_text(encoding="utf-8"))
                        if output.exists() else {})
            write(output, {**sections, benchmark.name: text})
    return failed


def measure(benchmark: Benchmark, is_quick: bool) -> tuple[str, bool]:
    """(the section of a benchmark, whether it did not fail)."""
    missing = [name for name in benchmark.needs
               if not importlib.util.find_spec(name)]
    if missing:
        return f"{SKIPPED} needs {', '.join(missing)}", True
    command = benchmark.command(is_quick)
    busy, started = other_work(), time.perf_counter()
    status, printed, errors = _run_alone([sys.executable, *command])
    seconds = time.perf_counter() - started
    others = (other_work() - busy) / seconds
    beside = ("not known" if math.isnan(others)
              else f"{max(others, 0.0):.1f} cores")
    lines = [f"`python {' '.join(command)}`"
             + (" (quick)" if is_quick else ""), "",
             f"- {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, "
             f"revision {revision()}, {seconds:.0f} s, other work: "
             f"{beside}", f"- {machine()}; {versions()}", ""]
    if status:
        last = (errors.strip() or printed.strip() or "no output"
                ).splitlines()[-1]
        lines += [f"{_FAILED}, exit status {status}: `{last}`", ""]
    return "\n".join([*lines, as_markdown(printed)]).strip(), not status


def _run_alone(command: list[str]) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of a command whose own processes end
    with it, however it ends: they would spoil the next one's times."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, errors="replace",
                          start_new_session=True) as process:
        try:
            printed, errors = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed, errors = process.communicate()
            errors += f"\ntook more than {LIMIT_SECONDS} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, printed, errors


def as_markdown(printed: str) -> str:
    """Tables as they are, other lines as paragraphs between them."""
    blocks: list[list[str]] = []
    for line in map(str.rstrip, printed.splitlines()):
        is_row = line.startswith("|")
        if not line:
            blocks.append([])
        elif not blocks or not blocks[-1] or (
                is_row != blocks[-1][-1].startswith("|")):
            blocks.append([_plain(line)])
        else:
            blocks[-1].append(_plain(line))
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _plain(line: str) -> str:
    """No heading: those are what sections are told apart by."""
    return "\\" + line if line.startswith("#") else line


def read_sections(text: str) -> dict[str, str]:
    """{name: text} of a file that `write` wrote."""
    parts = re.split(r"^## (\S+)\n", text, flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body
            in zip(parts[::2], parts[1::2], strict=True)}


def write(output: Path, sections: Mapping[str, str]) -> None:
    """The whole file, in the order of `BENCHMARKS`, others behind."""
    known = [benchmark.name for benchmark in BENCHMARKS]
    order = [*(name for name in known if name in sections),
             *sorted(set(sections) - set(known))]
    text = "\n".join([TITLE, *(f"## {name}\n\n{sections[name]}\n"
                               for name in order)])
    temporary = output.with_name(output.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, output)


def machine() -> str:
    """Processor, cores that this process may use, memory."""
    model = platform.processor() or platform.machine()
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
        model = re.search(r"model name\s*: (.+)", cpuinfo)[1]
    except (OSError, TypeError):
        pass  # not Linux, or a processor without a name
    gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{model}, {_cores()} cores, {gib:.1f} GiB"


def versions() -> str:
    """Of Python and of what the figures depend on."""
    versions = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(versions)


def revision() -> str:
    """Short hash of the commit, with a mark where files differ from it."""
    def git(*words: str) -> str:
        try:
            return subprocess.run(
                ["git", *words], cwd=ROOT, capture_output=True, text=True,
                check=False).stdout.strip()
        except OSError:  # no git here
            return ""

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".",
                  f":!{RESULTS.relative_to(ROOT)}")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (
        " with changes" if changed else "")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def other_work() -> float:
    """Processor seconds of everything but this process's children so far;
    not a number where the system does not tell (Linux does)."""
    try:
        first = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return math.nan
    # User time holds the guests' already; idle and waiting are no work.
    user, nice, system, _, _, *interrupts = map(int, first.split()[1:9])
    busy = user + nice + system + sum(interrupts)
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    return busy / os.sysconf("SC_CLK_TCK") - own.ru_utime - own.ru_stime


if __name__ == "__main__":
    sys.exit(main())
