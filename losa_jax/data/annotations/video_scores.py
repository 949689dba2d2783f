"""Reads an external classifier's scores of whole videos.

    CUHK's      {"results": {video id: [score of every class]},
                 "class": [names, in the order of the scores]}, or "classes"
    TCANet's    the same with [[logit of every class]], whose softmax is taken
                 (TCANet doubles it, which changes no order)
    top-1       {video id: {"class": name, "score": number}}
    UntrimmedNet's .npy, [test videos, 101]: row = number of the THUMOS test
                 video - 1, column = number of the UCF101 class - 1

ActivityNet's ids may have "v_" before them.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from losa_jax.data.annotations import thumos_facts
from losa_jax.data.annotations.formats import YOUTUBE_PREFIX
from losa_jax.errors import InputError
from losa_jax.utils.names import did_you_mean
from losa_jax.utils.numpy_file import read_array
from losa_jax.utils.text_files import nfc, read_json


def load_video_scores(path: str | Path, class_names: Sequence[str],
                      video_ids: Sequence[str]
                      ) -> dict[str, dict[str, float]]:
    """Returns {video id: {class: score}} of all the videos; InputError for an
    unreadable file, classes that are not among `class_names`, videos without
    scores, or scores that are negative or not finite."""
    path = Path(path)
    table = (_read_untrimmednet(path) if path.suffix == ".npy"
             else _read_json_scores(path))
    unknown = sorted({name for scores in table.values() for name in scores}
                     - set(class_names))
    if unknown:
        raise InputError(f"{path}: rename or remove {len(unknown)} classes "
                         "that are not among the data set's: "
                         f"{', '.join(unknown[:5])}"
                         f"{did_you_mean(unknown[0], class_names)}")
    chosen = {
        video_id: table.get(video_id)
        or table.get(YOUTUBE_PREFIX + video_id, {}) for video_id in video_ids}
    missing = [video_id for video_id, scores in chosen.items() if not scores]
    if missing:
        raise InputError(f"{path}: no scores of {len(missing)} of "
                         f"{len(video_ids)} videos: {', '.join(missing[:5])}"
                         f"{did_you_mean(missing[0], table)}; add them, or "
                         "leave the videos out with config.data.block_list")
    for video_id, scores in chosen.items():
        for name, score in scores.items():
            if not 0 <= score < math.inf:
                raise InputError(
                    f"{path}: video {video_id!r}, class {name!r}: the score "
                    f"{score} is not a number from 0 up; give probabilities")
    return chosen


def _read_json_scores(path: Path) -> dict[str, dict[str, float]]:
    content: Any = read_json(path, "see docs/faq.md")
    table: dict[str, dict[str, float]] = {}
    try:
        for video, scores in _rows(content):
            if nfc(video) in table:
                raise ValueError(f"{video!r} is there twice, in two Unicode "
                                 "forms of its name")
            table[nfc(video)] = {
                nfc(name): _number(score) for name, score in scores.items()}
    except (KeyError, TypeError, ValueError, AttributeError,
            OverflowError) as error:
        raise InputError(
            f"{path}: in neither CUHK's layout nor {{video: {{class, score}}}} "
            f"({error!r}): see docs/faq.md") from error
    return table


def _rows(content: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields videos and {class: score}; a wrong type raises an exception."""
    key = "class" if "class" in content else "classes"
    if not ("results" in content and key in content):
        for video, entry in content.items():
            yield video, {entry["class"]: entry["score"]}
        return
    names = content[key]
    if not isinstance(names, list) or len(set(names)) < len(names):
        raise TypeError(f'"{key}" is no list of different names')
    for video, row in content["results"].items():
        if isinstance(row, list) and len(row) == 1 and isinstance(
                row[0], list):
            row = _softmax(list(map(_number, row[0])))
        if not isinstance(row, list):
            raise TypeError(f"the scores of {video!r} are no list")
        yield video, dict(zip(names, row, strict=True))


def _softmax(logits: Sequence[float]) -> list[float]:
    powers = [math.exp(value - max(logits)) for value in logits]
    return [power / sum(powers) for power in powers]


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"the score {value!r} is no number")
    return float(value)


def _read_untrimmednet(path: Path) -> dict[str, dict[str, float]]:
    scores = read_array(path)
    if scores.ndim != 2 or scores.shape[1] != 101:
        raise InputError(f"{path}: has the shape {scores.shape}, not [videos,"
                         " 101 UCF101 classes]")
    return {f"video_test_{number:07d}": {
                name: float(values[place - 1])
                for name, place in thumos_facts.UCF101_NUMBERS.items()}
            for number, values in enumerate(scores, 1)}
