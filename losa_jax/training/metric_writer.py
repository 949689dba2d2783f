"""Metrics of a run: console, metrics.jsonl and TensorBoard.

TensorBoard files are written by tensorboardX, which needs no TensorFlow.
"""

import contextlib
import json
import logging
import math
import sys
from collections.abc import Iterator
from pathlib import Path

from losa_jax.distributed import processes
from losa_jax.utils.atomic_write import written_whole
from losa_jax.utils.run_files import METRICS_FILE


@contextlib.contextmanager
def _torch_hidden() -> Iterator[None]:
    """An import of torch in here finds nothing, unless it is there already.

    tensorboardX imports torch wherever it is installed, for arrays that a run
    never gives it: 1.6 s of processor time and 200 MB of every start.
    """
    hides = "torch" not in sys.modules
    if hides:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hides:
            del sys.modules["torch"]


with _torch_hidden():
    from tensorboardX import SummaryWriter

logger = logging.getLogger(__name__)


class MetricWriter:
    """Appends {"step": ..., name: value, ...} lines, by the run's first
    process; does nothing in the others."""

    def __init__(self, workdir: Path, first_step: int):
        """
        Args:
          workdir: of the run.
          first_step: where this start begins. Lines of later steps are from
            a run that died after its last checkpoint; they are dropped, so
            that the trace is that of an unbroken run.
        """
        self._writes = processes.is_first()
        if not self._writes:
            return
        self._path = workdir / METRICS_FILE
        _drop_lines_after(self._path, first_step)
        self._file = self._path.open("a")
        self._events = SummaryWriter(
            str(workdir / "tensorboard"),
            # TensorBoard hides the dead run's points by itself.
            purge_step=first_step + 1 if first_step else None)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line and one point a value; NaN becomes null."""
        if not self._writes:
            return
        clean = {name: value if math.isfinite(value) else None
                 for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **clean}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the files."""
        if not self._writes:
            return
        self._file.close()
        self._events.close()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _drop_lines_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            # A kill in the middle of a write leaves half a line.
            continue
    with written_whole(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept))
