"""A run on a data set of THUMOS-14's true size, stage by stage.

    python -m benchmarks.rehearsal --annotations=thumos14.json
        [--videos=103,412] [--folder=FOLDER] [--json=OUT]
        [--config.SECTION.KEY=VALUE ...]

The files have the ids, lengths and frame rates of the annotations (412 videos,
24.4 hours) and are made by copying encoded frames of a few short clips. The
recipe is configs/thumos.py:s, with all its windows and steps but with the
quick start's backbone, 64 pixels and a narrow head, for a CPU. Each stage is
a command in a process of its own: `check_data`, one epoch of training with
its evaluation, an evaluation, caching, an epoch from the cache with its
evaluation, `score`.

--videos gives one or several sizes, evenly spread over both subsets; 0 is all.
The last columns divide by the hours of video and by the bytes of the files:
a stage whose figures there grow from one size to the next does not scale.
"""

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.child_process import Usage, run_measured
from benchmarks.common.figures import table

RECIPE = "configs/thumos.py:s"
FLAGS = (
    "backbone.name=", "backbone.checkpoint=configs/tiny_backbone",
    "backbone.width=96", "backbone.depth=6", "backbone.heads=4",
    "backbone.dtype=float32", "augment.size=64", "adapter.num_taps=3",
    "head.width=64", "train.epochs=1", "train.schedule_epochs=1",
    "train.warmup_epochs=0.5", "data.block_list=thumos_211")
CACHE_FLAGS = ("window.align_to_clips=True", "data.cache_dtype=float16")
_MIB, _GIB = 2**20, 2**30


@dataclasses.dataclass(frozen=True)
class Stage:
    """What one command used, and the bytes that it left in the folder."""

    name: str
    usage: Usage
    left_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, required=True,
                        help="ActionFormer's thumos14.json")
    parser.add_argument("--videos", default="0")
    parser.add_argument("--folder", type=Path, help="for all files, which "
                        "stay; default: a temporary one")
    parser.add_argument("--json", type=Path, dest="output")
    arguments, flags = parser.parse_known_args()
    if unknown := [flag for flag in flags
                   if not flag.startswith("--config.")]:
        parser.error(f"unknown arguments: {' '.join(unknown)}")
    content = json.loads(arguments.annotations.read_text(encoding="utf-8"))
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for count in map(int, arguments.videos.split(",")):
            database = evenly_chosen(content["database"], count)
            folder = (arguments.folder or Path(scratch)) / str(len(database))
            results.append(rehearse(
                {**content, "database": database}, folder, flags))
            print(markdown(results[-1]), flush=True)
            if not arguments.folder:
                shutil.rmtree(folder)
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=1) + "\n",
                                    encoding="utf-8")


def evenly_chosen(database: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Returns about `count` videos, the same share of each subset's; 0: all.

    Of each subset they are evenly spread over the videos by length.
    """
    if not 0 < count < len(database):
        return dict(database)
    subsets: dict[str, list[str]] = {}
    for name in sorted(database, key=lambda name: database[name]["duration"]):
        subsets.setdefault(database[name]["subset"], []).append(name)
    chosen = set()
    for names in subsets.values():
        share = max(2, round(len(names) * count / len(database)))
        step = len(names) / min(share, len(names))
        chosen |= {names[int(step * (i + 0.5))]
                   for i in range(min(share, len(names)))}
    return {name: video for name, video in database.items() if name in chosen}


def rehearse(content: Mapping[str, Any], folder: Path, flags: Sequence[str]
             ) -> dict[str, Any]:
    """Runs all stages on new files in a new folder; returns JSON."""
    folder.mkdir(parents=True)
    annotations = folder / "annotations.json"
    annotations.write_text(json.dumps(content), encoding="utf-8")
    durations = [video["duration"] for video in content["database"].values()]
    stages = []
    for name, command in commands(folder, annotations, flags):
        before = folder_bytes(folder)
        print(f"{name}: python {' '.join(command)}", file=sys.stderr)
        stages.append(Stage(name, run_measured(command),
                            folder_bytes(folder) - before))
    return {"videos": len(durations), "hours": sum(durations) / 3600,
            "file_bytes": folder_bytes(folder / "videos"),
            "windows": evaluated_windows(folder, content["database"]),
            "stages": [dataclasses.asdict(stage) for stage in stages]}


def commands(folder: Path, annotations: Path, flags: Sequence[str]
             ) -> Iterator[tuple[str, list[str]]]:
    """Yields the name of each stage and what follows `python`."""
    def run(workdir: str, *more: str) -> list[str]:
        return ["-m", "losa_jax.main", f"--config={RECIPE}",
                f"--workdir={folder / workdir}",
                *(f"--config.{flag}" for flag in FLAGS), *flags,
                f"--config.data.annotations={annotations}",
                f"--config.data.videos={folder / 'videos'}", *more]

    cached = [*(f"--config.{flag}" for flag in CACHE_FLAGS),
              f"--config.data.cache={folder / 'cache'}"]
    yield "make the files", ["-m", "benchmarks.common.stream_copies",
                             str(annotations), str(folder / "videos")]
    yield "check_data", run("run", "--mode=check_data")
    yield "train an epoch, evaluate", run("run")
    yield "evaluate", run("run", "--mode=eval")
    yield "cache", run("cached_run", "--mode=cache", *cached)
    yield "train from the cache, evaluate", run("cached_run", *cached)
    yield "score", ["-m", "losa_jax.score",
                    str(folder / "run" / "predictions.json"),
                    f"--annotations={annotations}", "--subset=test",
                    "--videos=thumos_211", "--protocol=thumos"]


def folder_bytes(folder: Path) -> int:
    """Returns the size of all files of a folder and its subfolders."""
    return sum(path.stat().st_size for path in folder.rglob("*")
               if path.is_file())


def evaluated_windows(folder: Path, database: Mapping[str, Any]) -> int:
    """Returns the number of windows of the predicted videos."""
    # Imported here, so that this process stays small (see `Usage`).
    from losa_jax.data.windows.sampling import test_windows
    from losa_jax.timeline import sample_grid
    window = json.loads((folder / "run/config.json").read_text())["window"]
    predicted = json.loads((folder / "run/predictions.json").read_text())
    return sum(
        len(test_windows(sample_grid(
            video["fps"], round(video["duration"] * video["fps"]),
            sampling="stride", frame_stride=window["frame_stride"]),
            window["samples"], window["overlap"]))
        for name, video in database.items() if name in predicted["results"])


def markdown(result: Mapping[str, Any]) -> str:
    """Returns a line about the data and a table of the stages."""
    hours, file_bytes = result["hours"], result["file_bytes"]
    rows = []
    for stage in result["stages"]:
        usage = stage["usage"]
        read, written = usage["read_bytes"], usage["written_bytes"]
        rows.append((
            stage["name"], f"{usage['seconds']:.0f}",
            f"{usage['cpu_seconds']:.0f}",
            f"{usage['peak_bytes'] / _MIB:,.0f}",
            "" if read is None else f"{read / _GIB:.2f}",
            "" if written is None else f"{written / _GIB:.2f}",
            f"{stage['left_bytes'] / _GIB:.2f}",
            f"{usage['cpu_seconds'] / hours:.1f}",
            "" if read is None else f"{read / file_bytes:.1f}"))
    return (f"\n{result['videos']} videos, {hours:.1f} hours, "
            f"{file_bytes / _GIB:.2f} GiB; {result['windows']} windows are "
            "evaluated\n\n" + table([
                "stage", "s", "CPU s", "peak MiB", "read GiB", "written GiB",
                "left on disk GiB", "CPU s per hour of video",
                "read per byte of video"], rows))


if __name__ == "__main__":
    main()
