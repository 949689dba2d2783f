"""Subtitles (.srt, .vtt): a cue an action."""

import html
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from losa_jax.data.annotations.tools import tables
from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File
from losa_jax.data.annotations.tools.recording import Recording, one_line

TITLE = "subtitles"

_TIME = r"(?:\d+:)?\d{1,2}:\d{1,2}(?:[.,]\d{1,3})?"
_CUE = re.compile(rf"\s*({_TIME})\s*-->\s*({_TIME})(?:\s.*)?")
_TAG = re.compile(r"</?(?:b|i|u|s|c|v|lang|ruby|rt|font)(?:[ .][^>]*)?>"
                  r"|<\d[\d:.]*>|\{\\[^}]*\}")
# `predict` writes the score behind the label.
_SCORED = re.compile(r"(.*\S) (0\.\d\d|1\.00)")


def recognizes(file: File) -> bool:
    """Whether this is WebVTT or has a cue of SubRip near its start; also a
    file of SubRip without any."""
    return file.json is None and not file.is_archive and (
        file.path.suffix.lower() == ".srt" and not file.text.strip()
        or file.text.lstrip().startswith("WEBVTT")
        or any(_CUE.fullmatch(line) for line in file.text.splitlines()[:20]))


def read(file: File, content: Content) -> None:
    """Reads the cues; their lines are one label."""
    video = content.own_video(file.path)
    lines = file.text.splitlines()
    number = 0
    while number < len(lines):
        cue = _CUE.fullmatch(lines[number])
        number += 1
        if cue is None:
            continue
        place = f"{file.name}, line {number}"
        words: list[str] = []
        while number < len(lines) and lines[number].strip():
            if _CUE.fullmatch(lines[number]):  # without a blank line before
                if words and words[-1].isdigit():
                    words.pop()
                break
            words.append(lines[number].strip())
            number += 1
        label = html.unescape(_TAG.sub("", " ".join(words)))
        score = None
        if match := _SCORED.fullmatch(label.strip()):
            label, score = match[1], float(match[2])
            content.remark("labels with a number behind them, which is taken "
                           "as the score", f"{match[0]!r}")
        start, end = map(tables.seconds, cue.groups())
        content.add(video, label, start, end, where=place, score=score)


def write_srt(recordings: Sequence[Recording], folder: Path
              ) -> dict[str, str]:
    """Returns SubRip subtitles with label and score for each video."""
    return {f"{one.video_id}.srt": _cues(one, ",", _plain).lstrip("\n")
            for one in recordings}


def write_vtt(recordings: Sequence[Recording], folder: Path
              ) -> dict[str, str]:
    """Returns WebVTT subtitles, for the <track> of a web page."""
    return {f"{one.video_id}.vtt": "WEBVTT\n" + _cues(one, ".", _escaped)
            for one in recordings}


def _cues(recording: Recording, point: str, escape: Callable[[str], str]
          ) -> str:
    return "".join(
        f"\n{number}\n{_clock(start, point)} --> {_clock(end, point)}\n"
        f"{escape(one_line(row['label']))} {row['score']:.2f}\n"
        for number, (row, start, end) in enumerate(recording.timed(), 1))


def _escaped(label: str) -> str:
    return html.escape(label, quote=False).replace("{\\", "&#123;\\")


def _plain(label: str) -> str:
    """Returns a label as it is, unless players could take a part of it for a
    tag or the end of the cue."""
    is_text = ("-->" not in label and html.unescape(label) == label
               and not _TAG.search(label))
    return label if is_text else _escaped(label)


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{rest:03}"
