"""Videos that fail while a run reads them.

A fault travels in its batch, as bytes: only what a run has used is counted,
however far it reads ahead.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from losa_jax.data.windows.batch import Example
from losa_jax.utils.atomic_write import written_whole

logger = logging.getLogger(__name__)

# Of an example: faults met while it was made, as JSON.
FAULT_BYTES = 2048
_REASON_CHARACTERS = 400
BEFORE, TRAINING, EVALUATION = "before the run", "training", "evaluation"


def pack_faults(faults: Sequence[tuple[str, str]]) -> Example:
    """An example's part that tells of faults.

    Args:
      faults: (video id, reason), those that made room for this example.

    Returns:
      faults: uint8 [FAULT_BYTES], as many as fit.
      redrawn: int32, how many.
    """
    told = [(video_id, reason[:_REASON_CHARACTERS])
            for video_id, reason in faults]
    while len(content := json.dumps(told, ensure_ascii=False).encode()
              ) > FAULT_BYTES:
        told.pop()
    packed = np.zeros(FAULT_BYTES, np.uint8)
    if told:
        packed[:len(content)] = np.frombuffer(content, np.uint8)
    return {"faults": packed, "redrawn": np.int32(len(faults))}


class BrokenVideos:
    """What failed so far, for the log, the end of a run and a file.

    Attributes:
      reasons: {video id: why it could not be read}.
      redrawn_windows: training windows that made room for another one.
    """

    def __init__(self, path: Path | None = None):
        """
        Args:
          path: broken_videos.json; what an earlier start of the run wrote
            is kept. None writes nothing.
        """
        self._path = path
        self._entries: dict[str, dict] = {}
        if path is not None and path.exists():
            self._entries = {entry["video_id"]: entry for entry
                             in json.loads(path.read_text())["videos"]}

    @property
    def reasons(self) -> dict[str, str]:
        """{video id: what is wrong with it}."""
        return {name: entry["reason"]
                for name, entry in self._entries.items()}

    @property
    def redrawn_windows(self) -> int:
        """Training windows that made room for another one, in all."""
        return sum(entry["redrawn_windows"]
                   for entry in self._entries.values())

    @property
    def entries(self) -> list[dict]:
        """As in the file."""
        return list(self._entries.values())

    def absorb(self, entries: Sequence[dict]) -> None:
        """Takes what another process of the run noted."""
        for entry in entries:
            for step in entry["steps"] or [None]:
                self.add(entry["video_id"], entry["reason"], entry["found"],
                         step)

    def add(self, video_id: str, reason: str, found: str,
            step: int | None = None) -> None:
        """Notes a video and writes the file.

        Args:
          found: BEFORE, TRAINING or EVALUATION.
          step: of the training, a window of which was drawn anew.
        """
        entry = self._entries.get(video_id)
        if entry is None:
            if found != BEFORE:  # those were warned of when they were found
                logger.warning("skipped %s: %s", video_id, reason)
            entry = self._entries[video_id] = {
                "video_id": video_id, "found": found, "reason": reason,
                "redrawn_windows": 0, "steps": []}
        # A resumed run does some steps again.
        if step is not None and step not in entry["steps"]:
            entry["steps"].append(step)
            entry["redrawn_windows"] += 1
        self._write()

    def collect(self, batch: dict[str, np.ndarray], found: str,
                step: int | None = None) -> int:
        """Takes the faults out of a batch.

        Returns:
          how many of its windows were drawn anew.
        """
        for packed in batch.pop("faults"):
            content = packed.tobytes().rstrip(b"\0")
            for video_id, reason in json.loads(content) if content else ():
                self.add(video_id, reason, found, step)
        return int(batch.pop("redrawn").sum())

    def report(self) -> str:
        """Lines for the end of a run; "" if nothing was skipped."""
        if not self._entries:
            return ""
        lines = [f"{len(self._entries)} videos were skipped "
                 "(config.data.on_broken_video=skip), "
                 f"{self.redrawn_windows} training windows drawn anew:"]
        lines += [f"  {name} ({entry['found']}): {entry['reason']}"
                  for name, entry in self._entries.items()]
        if self._path is not None:
            lines.append(f"also in {self._path}")
        return "\n".join(lines)

    def _write(self) -> None:
        if self._path is None:
            return
        with written_whole(self._path) as temporary:
            temporary.write_text(json.dumps(
                {"videos": self.entries}, indent=1) + "\n")
