"""X-AnyLabeling's "Video Classifier": a JSON beside each video."""

from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File

TITLE = "X-AnyLabeling"

TYPE = "video_classification"


def recognizes(file: File) -> bool:
    """Whether this is a file of the video classifier."""
    return isinstance(file.json, dict) and file.json.get("type") == TYPE


def read(file: File, content: Content) -> None:
    """Reads the segments, whose milliseconds count."""
    name = str(file.json.get("video") or file.path.stem)
    milliseconds = file.json.get("duration_ms")
    fps = file.json.get("fps")
    video = content.video(
        name, duration_seconds=milliseconds / 1000 if isinstance(
            milliseconds, (int, float)) else None,
        fps=fps if isinstance(fps, (int, float)) else None)
    for number, segment in enumerate(file.json.get("segments") or []):
        where = f"{file.name}, segment {number}"
        try:
            if "start_ms" in segment:
                start, end = (float(segment[key]) / 1000
                              for key in ("start_ms", "end_ms"))
            else:  # the last frame is included
                rate = content.fps_of(video, content.videos[video].fps)
                start = float(segment["start_frame"]) / rate
                end = (float(segment["end_frame"]) + 1) / rate
            content.add(video, str(segment["label"]), start, end, where=where,
                        score=segment.get("score"))
        except (KeyError, TypeError, ValueError) as error:
            content.problems.append(f"{where}: needs label, start_ms and "
                                    f"end_ms ({error!r})")
