"""What happens when, in your own video.

    python -m losa_jax.predict VIDEO_OR_FOLDER... --checkpoint=WORKDIR
        [--output=DIR]
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from losa_jax.jobs.localizer import Localizer


def load(folder: str | Path, **settings: Any) -> "Localizer":
    """The model of a finished run, ready for any video.

    >>> model = load("runs/quick")
    >>> for found in model("video.mp4"):
    ...     print(found.label, found.start_seconds, found.end_seconds)

    Args:
      folder: work directory of the run.
      **settings: of `from_workdir`.

    Raises:
      InputError: no finished run.
    """
    # Imported late, so that --help does not wait for jax.
    from losa_jax.jobs.localizer import from_workdir

    return from_workdir(Path(folder), **settings)
