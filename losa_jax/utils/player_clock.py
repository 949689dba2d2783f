"""The clock that players show: 0:00 is where the first stream of a file starts.

A video that starts after its sound is shown later by that much.
"""

import av
from av.container import InputContainer

from losa_jax.errors import InputError

_MAX_LEAD_SECONDS = 24 * 3600.0


def start_seconds(container: InputContainer) -> float | None:
    """Returns the time stamp at 0:00; None where there is none, or where the
    times of frames are derived from their number (AVI)."""
    start = container.start_time
    if start is None or container.format.name == "avi":
        return None
    return start / av.time_base


def lead_frames(name: object, start: float | None, first_seconds: float,
                fps: float) -> int:
    """Returns after how many frames' time players show the first frame.

    Args:
      name: of the file, for the message.
      start: `start_seconds` of the file.
      first_seconds: time stamp of the first frame.
      fps: frames per second.

    Raises:
      InputError: it is more than a day, so the time stamps are wrong.
    """
    seconds = 0.0 if start is None else max(0.0, first_seconds - start)
    if seconds > _MAX_LEAD_SECONDS:
        raise InputError(
            f"{name}: its time stamps are wrong: the video starts "
            f"{seconds:.0f} s after the sound. Copy it again from its source "
            "or encode it again.")
    return round(seconds * fps)
