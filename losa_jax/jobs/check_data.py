"""--mode=check_data: is every video of a config there, whole, and as said?

Also proposes a grid for a data set of one's own from its action lengths.
"""

import dataclasses
import math
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from losa_jax.data.annotations.lint import find_faults
from losa_jax.data.records import AnnotatedVideo, VideoInfo
from losa_jax.data.video.check import (
    DISAGREEMENT,
    REPORT,
    check_videos,
    end_seconds,
)
from losa_jax.data.windows.sampling import video_grid
from losa_jax.jobs.setup import (
    open_stored,
    read_annotations,
    start_log,
    write_json,
)
from losa_jax.utils.run_files import PROBED_FILE

REPORT_FILE = "check_data.json"
BLOCK_LIST_FILE = "block_list.txt"
MAX_SHOWN = 20
# The kind of finding that puts a video onto the block list.
UNREADABLE = "missing or unreadable"
# An action should cover so many tokens of the finest level ...
SHORTEST_TOKENS = 4
# ... and regression ranges double from here.
FIRST_RANGE = 4


class Finding(NamedTuple):
    """Something about one video."""

    video_id: str
    subset: str
    kind: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A grid that suits the lengths of a set's actions.

    Attributes:
      seconds: lengths of actions, quantiles 5, 50, 95 %.
      flags: config keys and values.
    """

    seconds: tuple[float, float, float]
    flags: dict[str, Any]


def check_data(config: Any, workdir: Path) -> list[Finding]:
    """The job: a table, check_data.json, block_list.txt.

    Raises:
      InputError: annotations that cannot be read, no folder of videos.
    """
    start_log(workdir)
    data = config.data
    stored = open_stored(config)
    # What reaches outside is reported here, and does not stop the job.
    annotations = read_annotations(config, stored)
    findings: list[Finding] = []
    infos: dict[str, VideoInfo] = {}
    videos: list[AnnotatedVideo] = []
    for subset in dict.fromkeys((data.train_subset, data.test_subset)):
        chosen = annotations.subset(subset)
        videos += chosen
        if stored is not None:
            found, broken = stored.check(chosen, REPORT)
        else:
            found, broken = check_videos(
                chosen, Path(data.videos), on_broken_video=REPORT,
                check=data.check, cache_path=workdir / PROBED_FILE,
                num_threads=data.num_threads, progress=True)
        infos |= found
        findings += [Finding(one.video_id, subset, UNREADABLE, one.reason)
                     for one in broken]
        for video in chosen:
            if video.video_id in found:
                findings += look_at(video, found[video.video_id], config)
    proposal = propose(videos, infos, config.window.clip_samples)
    blocked = sorted({one.video_id for one in findings
                      if one.kind == UNREADABLE})
    write_json(workdir / REPORT_FILE, {
        "videos": len(videos), "found": len(infos),
        "findings": [one._asdict() for one in findings],
        "proposal": None if proposal is None
        else dataclasses.asdict(proposal)})
    (workdir / BLOCK_LIST_FILE).write_text(
        "".join(f"{name}\n" for name in blocked))
    _print(findings, len(videos), len(infos), proposal, workdir, blocked)
    return findings


def look_at(video: AnnotatedVideo, info: VideoInfo, config: Any
            ) -> list[Finding]:
    """What is odd about a video that can be read."""
    def finding(kind: str, detail: str) -> Finding:
        return Finding(video.video_id, video.subset, kind, detail)

    found = []
    for kind, said, real in (
            ("another duration", video.duration_seconds,
             info.duration_seconds), ("another frame rate", video.fps,
                                      info.fps)):
        if said is not None and abs(said - real) > DISAGREEMENT * real:
            found.append(finding(kind, f"the annotation says {said:.6g}, "
                                 f"the file has {real:.6g}"))
    window = config.window
    grid = video_grid(info, window)
    if grid.num_samples < window.clip_samples:
        found.append(finding(
            "short", f"{grid.num_samples} samples, a clip has "
            f"{window.clip_samples}: the rest is padding"))
    found += [finding(fault.category, fault.detail)
              for fault in find_faults(video, end_seconds(video, info))]
    return found


def propose(videos: list[AnnotatedVideo], infos: dict[str, VideoInfo],
            clip_frames: int) -> Proposal | None:
    """Stride, window and levels that suit the actions' lengths.

    A short action (5 %) covers four tokens; the window holds twice a long
    one (95 %); the last level's range begins below its half.
    """
    lengths = np.array([action.end_seconds - action.start_seconds
                        for video in videos for action in video.actions
                        if action.end_seconds > action.start_seconds])
    rates = [info.fps for info in infos.values()]
    if not lengths.size or not rates:
        return None
    short, middle, long = np.quantile(lengths, (0.05, 0.5, 0.95))
    fps = float(np.median(rates))
    stride = max(1, math.floor(short * fps / SHORTEST_TOKENS))
    long_tokens = long * fps / stride
    levels = 2
    while (FIRST_RANGE * 2 ** (levels - 2) < long_tokens / 2
           and levels < 9):
        levels += 1
    unit = math.lcm(clip_frames, 2 ** (levels - 1))
    frames = max(unit, math.ceil(2 * long_tokens / unit) * unit)
    edges = tuple(float(FIRST_RANGE * 2 ** i) for i in range(levels - 1))
    return Proposal(
        (float(short), float(middle), float(long)),
        {"window.sampling": "stride", "window.frame_stride": stride,
         "window.samples": frames, "window.tokens": frames,
         "head.num_levels": levels, "head.regression_edges": edges})


def _print(findings: list[Finding], num_videos: int, num_found: int,
           proposal: Proposal | None, workdir: Path, blocked: list[str]
           ) -> None:
    counts = Counter(one.kind for one in findings)
    print(f"{num_found} of {num_videos} videos can be read")
    for kind, count in counts.most_common():
        print(f"\n{kind}: {count} videos")
        some = [one for one in findings if one.kind == kind]
        for one in some[:MAX_SHOWN]:
            print(f"  {one.video_id} ({one.subset}): {one.detail}")
        if count > MAX_SHOWN:
            print(f"  and {count - MAX_SHOWN} more in "
                  f"{workdir / REPORT_FILE}")
    if proposal is not None:
        short, middle, long = proposal.seconds
        print(f"\nactions last {short:.2f} s (5 %), {middle:.2f} s (half), "
              f"{long:.2f} s (95 %); a grid that suits them:")
        for name, value in proposal.flags.items():
            text = f"'{value}'" if isinstance(value, tuple) else value
            print(f"    --config.{name}={text}")
    print(f"\nwrote {workdir / REPORT_FILE}")
    if blocked:
        print(f"{len(blocked)} videos are in {workdir / BLOCK_LIST_FILE}: "
              "leave them out with --config.data.block_list="
              f"{workdir / BLOCK_LIST_FILE}")
