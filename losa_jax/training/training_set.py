"""What a run was trained on, so that a resumed run notices other data."""

import json
import logging
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from losa_jax.data.records import Video
from losa_jax.errors import InputError, listed

FACT = "training_set"
_MAX_NAMES = 5
logger = logging.getLogger(__name__)


def describe(videos: Sequence[Video], steps_per_epoch: int) -> dict[str, Any]:
    """Returns the fact of a run: steps of an epoch and {video id: checksum of
    its length, its actions and what was reviewed}, in the order in which
    videos are numbered."""
    def checksum(video: Video) -> int:
        content: list[Any] = [video.info.fps, video.info.frame_count,
                              video.actions]
        # Videos without a review keep the checksum of older versions.
        if video.reviewed_seconds is not None or video.hard_negatives:
            content += [video.reviewed_seconds, video.hard_negatives]
        return zlib.crc32(json.dumps(content).encode())

    return {FACT: {
        "steps_per_epoch": steps_per_epoch,
        "videos": {video.video_id: checksum(video) for video in videos}}}


def check_same(saved: dict[str, Any], now: dict[str, Any], *, accepted: bool,
               workdir: Path) -> None:
    """Compares the facts of a run's checkpoint with those of this command.

    Raises:
      InputError: they differ and this is not `accepted`; names what does.
    """
    if FACT not in saved:  # of an older version
        return
    before, after = saved[FACT], now[FACT]
    old, new = before["videos"], after["videos"]
    lines = [f"{len(names)} videos {what}: {_some(names)}" for what, names in (
        ("are gone", [name for name in old if name not in new]),
        ("are new", [name for name in new if name not in old]),
        ("have other annotations or another length",
         [name for name in old if new.get(name, old[name]) != old[name]]))
        if names]
    if not lines and [*old] != [*new]:
        lines.append("the videos are in another order")
    steps = before["steps_per_epoch"], after["steps_per_epoch"]
    if steps[0] != steps[1]:
        lines.append(f"an epoch has {steps[1]} steps instead of {steps[0]}")
    if not lines:
        return
    text = f"{workdir} holds a run on another training set:{listed(lines)}"
    if not accepted:
        raise InputError(
            f"{text}\nrestore the data, or accept the change with "
            "--config.data.accept_changes=True, or choose another "
            "--workdir for a new run")
    logger.warning("%s\nthe run goes on with these", text)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMES]) + (
        ", ..." if len(names) > _MAX_NAMES else "")
