"""A label for every frame, one a line, one file a video (MS-TCN, Breakfast,
50Salads, GTEA)."""

from collections import defaultdict

from losa_jax.data.annotations.tools import tables
from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File

TITLE = "a label for every frame"

_FOLDER = "groundtruth"
_LONGEST = 200  # characters of a label
_MEAN_RUN = 2


def recognizes(file: File) -> bool:
    """Whether this is a text whose lines repeat, as labels of frames do."""
    if file.json is not None or file.is_archive or (
            file.path.suffix.lower() not in (".txt", "")):
        return False
    lines = file.text.rstrip().splitlines()
    changes = sum(one != two for one, two in zip(lines, lines[1:],
                                                 strict=False))
    return bool(lines) and all(
        line.strip() and len(line) <= _LONGEST and "\t" not in line
        for line in lines) and (
            file.path.parent.name.lower() == _FOLDER
            or len(lines) >= _MEAN_RUN * (changes + 1))


def read(file: File, content: Content) -> None:
    """Reads the runs of equal labels; background is no action."""
    video = content.own_video(file.path)
    frames = defaultdict(list)
    for number, line in enumerate(file.text.rstrip().splitlines()):
        if not content.options.is_background(line.strip()):
            frames[line.strip()].append(number)
    fps = content.fps_of(video)
    for label, numbers in frames.items():
        for first, end in tables.runs(numbers):
            content.add(video, label, first / fps, end / fps)
