"""Writes the metrics of a run to metrics.jsonl and TensorBoard."""

import json
import math
from pathlib import Path

from losa_jax.distributed import processes
from losa_jax.utils.atomic_write import write_text
from losa_jax.utils.run_files import METRICS_FILE


class MetricWriter:
    """Appends lines {"step": ..., name: value, ...}.

    Only the first process of a run writes.
    """

    def __init__(self, workdir: Path, first_step: int):
        """
        Args:
          workdir: of the run.
          first_step: at which this start begins. Lines of later steps, from
            a run that was killed after its last checkpoint, are dropped.
        """
        self._writes = processes.is_first()
        if not self._writes:
            return
        # Imported here, because it imports torch where that is installed.
        from tensorboardX import SummaryWriter

        path = workdir / METRICS_FILE
        _drop_lines_after(path, first_step)
        self._file = path.open("a")
        self._events = SummaryWriter(
            str(workdir / "tensorboard"),
            # TensorBoard hides the points of later steps.
            purge_step=first_step + 1 if first_step else None)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes one line; values that are not finite become null there."""
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
        if self._writes:
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
    write_text(path, "".join(line + "\n" for line in kept))
