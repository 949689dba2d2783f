"""Subtitles (.srt, .vtt): a cue an action."""

import html
import re

from losa_jax.data.annotations.tools import tables
from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File

TITLE = "subtitles"

_TIME = r"(?:\d+:)?\d{1,2}:\d{1,2}(?:[.,]\d{1,3})?"
_CUE = re.compile(rf"\s*({_TIME})\s*-->\s*({_TIME})(?:\s.*)?")
_TAG = re.compile(r"</?(?:b|i|u|s|c|v|lang|ruby|rt|font)(?:[ .][^>]*)?>"
                  r"|<\d[\d:.]*>|\{\\[^}]*\}")
# `predict` writes the score behind the label.
_SCORED = re.compile(r"(.*\S) ([01]\.\d\d)")


def recognizes(file: File) -> bool:
    """Whether this is WebVTT or has a cue of SubRip near its start."""
    return file.json is None and not file.is_archive and (
        file.text.lstrip().startswith("WEBVTT")
        or any(_CUE.fullmatch(line) for line in file.text.splitlines()[:20]))


def read(file: File, content: Content) -> None:
    """Reads the cues; their lines are one label."""
    video = content.video(content.options.video or file.path.stem,
                          is_id=not content.options.video)
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
