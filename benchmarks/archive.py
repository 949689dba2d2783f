"""Measures `predict` on an archive: one process, four, and four with a SIGKILL.

    python -m benchmarks.archive [--videos=48] [--seconds=20] [--processes=4]

The processes are started at the same moment and share only the folders of the
videos and of the output. In the last run, SIGKILL ends the first process that
holds a video. The time is from the first claim of a video to the end of the
last process, without the start of the program. Each merged predictions.json
must equal that of one process, byte for byte. The model has random weights.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common.random_run import write_random_run
from benchmarks.pipeline_speed import render


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=48)
    parser.add_argument("--seconds", type=int, default=20,
                        help="of a video, 320 x 240, 30 frames a second")
    parser.add_argument("--processes", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        _compare(arguments, Path(scratch))


def _compare(arguments: argparse.Namespace, scratch: Path) -> None:
    run = write_random_run(scratch / "random", depth=2)
    videos = scratch / "videos"
    videos.mkdir()
    first = render(videos / "000.mp4", gop=30, frames=30 * arguments.seconds)
    for number in range(1, arguments.videos):
        os.link(first, videos / f"{number:03}.mp4")
    _measure(run, videos, scratch / "compiles", 1)
    print(f"{arguments.videos} videos of {arguments.seconds} s, "
          f"{os.cpu_count()} cores:")
    merged = []
    for name, count, kills in (
            ("1 process", 1, False),
            (f"{arguments.processes} processes", arguments.processes, False),
            (f"{arguments.processes} processes, SIGKILL of one",
             arguments.processes, True)):
        output = scratch / name.replace(" ", "_")
        seconds, num_finished = _measure(run, videos, output, count, kills)
        merged.append((output / "predictions.json").read_bytes())
        print(f"  {name:32s} {arguments.videos / seconds:6.2f} videos/s "
              f"({seconds:.1f} s), {num_finished} finished, predictions.json "
              f"{'equal' if merged[-1] == merged[0] else 'DIFFERENT'}",
              flush=True)
    if len({*merged}) > 1:
        raise SystemExit("the merged files differ")


def _measure(run: Path, videos: Path, output: Path, count: int,
             kills: bool = False) -> tuple[float, int]:
    """Returns seconds and the number of videos that were finished, which is
    that of the archive if each was done once."""
    # The killed process's last line may be missing, and /dev/null loses it.
    logs = [(output.parent / f"{output.name}.{number}.log").open("w+")
            for number in range(count)]
    processes = [subprocess.Popen(
        [sys.executable, "-m", "losa_jax.predict", str(videos),
         f"--checkpoint={run}", f"--output={output}"], stdout=log,
        stderr=subprocess.DEVNULL) for log in logs]
    while not (pids := holders(output)):
        time.sleep(0.01)
    started = time.perf_counter()
    killed = None
    if kills:
        killed = next(one for one in processes if one.pid in pids)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    for one in processes:
        if one.wait() and one is not killed:
            raise SystemExit(f"a process ended with {one.returncode}")
    seconds = time.perf_counter() - started
    num_finished = 0
    for log in logs:
        log.seek(0)
        num_finished += log.read().count(" actions in ")
        log.close()
    return seconds, num_finished


def holders(output: Path) -> set[int]:
    """Returns the numbers of the processes that have claims now."""
    found = set()
    for path in (output / ".claims").glob("*"):
        try:
            found.add(json.loads(path.read_text())["pid"])
        except (FileNotFoundError, ValueError):
            continue
    return found


if __name__ == "__main__":
    main()
