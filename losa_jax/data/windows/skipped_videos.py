"""Videos that fail while a run reads them.

The `fault` of a training example is JSON, [video id, reason] of a video that
could not be read; its window is left out of the step. Only those of batches
that a run has used are counted.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from losa_jax.data.records import Video
from losa_jax.errors import InputError
from losa_jax.utils.atomic_write import write_text
from losa_jax.utils.text_files import read_json

logger = logging.getLogger(__name__)

BEFORE, TRAINING, EVALUATION = "before the run", "training", "evaluation"


class BrokenVideos:
    """Collects the skipped videos of a run."""

    def __init__(self, path: Path | None = None):
        """Reads what the run wrote to `path` before it was resumed; with None,
        there is no file.
        """
        self._path = path
        self._entries: dict[str, dict] = {}
        if path is not None and path.exists():
            content = read_json(path, "delete it")
            try:
                self._entries = {entry["video_id"]: entry
                                 for entry in content["videos"]}
            except (KeyError, TypeError) as error:
                raise InputError(f"{path}: no list of skipped videos "
                                 f"({error!r}): delete it") from error

    @property
    def reasons(self) -> dict[str, str]:
        """{video id: why it could not be read}."""
        return {name: one["reason"] for name, one in self._entries.items()}

    @property
    def left_out_windows(self) -> int:
        """Training windows that were left out of their step."""
        return sum(one["left_out_windows"] for one in self._entries.values())

    @property
    def entries(self) -> list[dict]:
        """The videos as in the file."""
        return list(self._entries.values())

    def absorb(self, entries: Sequence[dict]) -> None:
        """Adds the entries of another process of the run."""
        for entry in entries:
            for step in entry["steps"] or [None]:
                self.add(entry["video_id"], entry["reason"], entry["found"],
                         step)

    def add(self, video_id: str, reason: str, phase: str,
            step: int | None = None) -> None:
        """Adds a video and writes the file; the phase is BEFORE, TRAINING or
        EVALUATION, the step a training step that left out a window."""
        if video_id not in self._entries and phase != BEFORE:
            logger.warning("skipped %s: %s", video_id, reason)
        entry = self._entries.setdefault(video_id, {
            "video_id": video_id, "found": phase, "reason": reason,
            "left_out_windows": 0, "steps": []})
        # A resumed run repeats some steps.
        if step is not None and step not in entry["steps"]:
            entry["steps"].append(step)
            entry["left_out_windows"] += 1
        if self._path is not None:
            write_text(self._path, json.dumps(
                {"videos": self.entries}, indent=1) + "\n")

    def collect(self, batch: dict[str, np.ndarray], phase: str,
                step: int | None = None) -> int:
        """Removes the faults from a batch, adds them and returns how many
        there were."""
        faults = [json.loads(fault) for fault in batch.pop("fault").tolist()
                  if fault]
        for video_id, reason in faults:
            self.add(video_id, reason, phase, step)
        return len(faults)

    def require_some(self, videos: Sequence[Video]) -> None:
        """Raises InputError if all these videos were skipped."""
        reasons = self.reasons
        if all(video.video_id in reasons for video in videos):
            raise InputError(
                f"None of the {len(videos)} training videos can be read. "
                f"Check their disk first ({reasons[videos[-1].video_id]}).")

    def report(self) -> str:
        """Returns the lines for the end of a run; "" without any."""
        if not self._entries:
            return ""
        lines = [f"{len(self._entries)} videos were skipped "
                 "(config.data.on_broken_video=skip), "
                 f"{self.left_out_windows} training windows left out:"]
        lines += [f"  {name} ({entry['found']}): {entry['reason']}"
                  for name, entry in self._entries.items()]
        lines += [f"also in {self._path}"] if self._path is not None else []
        return "\n".join(lines)
