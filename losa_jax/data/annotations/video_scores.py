"""Scores of whole videos by an external classifier, as they circulate.

    CUHK's      {"results": {video id: [score of every class]},
                 "class": [names, in the order of the scores]}
    top-1       {video id: {"class": name, "score": number}}
    UntrimmedNet's .npy, [test videos, 101]: row = number of the THUMOS test
                 video - 1, column = number of the UCF101 class - 1

ActivityNet's ids may have "v_" before them.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from losa_jax.data.annotations import thumos_facts
from losa_jax.errors import InputError


def load_video_scores(path: str | Path, class_names: Sequence[str],
                      video_ids: Sequence[str]
                      ) -> dict[str, dict[str, float]]:
    """{video id: {class: score}} of the videos asked for.

    Args:
      path: a file in one of the layouts.
      class_names: of the data set; the file's must be among them.
      video_ids: every one must be in the file.

    Raises:
      InputError: unreadable, other classes, videos without scores, or
        scores that are no probabilities (negative, or not finite).
    """
    path = Path(path)
    if path.suffix == ".npy":
        table = _untrimmednet(path)
    else:
        table = _json(path)
    known = set(class_names)
    strangers = sorted({name for scores in table.values() for name in scores}
                       - known)
    if strangers:
        raise InputError(
            f"{path}: {len(strangers)} classes are not among the data set's "
            f"{len(known)}: {', '.join(strangers[:5])}; give scores of this "
            "data set's classes")
    found = {}
    missing = []
    for video_id in video_ids:
        scores = table.get(video_id, table.get(f"v_{video_id}"))
        if scores is None:
            missing.append(video_id)
        else:
            found[video_id] = scores
            # They are multiplied with the head's, or a root is taken.
            wrong = {name: score for name, score in scores.items()
                     if not 0 <= score < math.inf}
            if wrong:
                name, score = next(iter(wrong.items()))
                raise InputError(
                    f"{path}: video {video_id!r}, class {name!r}: the score "
                    f"{score} is not a number from 0 up; give probabilities, "
                    "not logits or their logarithms")
    if missing:
        raise InputError(f"{path}: no scores of {len(missing)} of "
                         f"{len(video_ids)} videos: "
                         f"{', '.join(missing[:5])}; add them, or leave "
                         "these videos out with config.data.block_list")
    return found


def _json(path: Path) -> dict[str, dict[str, float]]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: no video-level scores in it; the layouts "
                         "are in losa_jax/data/annotations/video_scores.py")
    try:
        if "results" in content and "class" in content:
            names = content["class"]
            return {video: dict(zip(names, map(float, row), strict=True))
                    for video, row in content["results"].items()}
        return {video: {entry["class"]: float(entry["score"])}
                for video, entry in content.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: not in a layout of "
            f"losa_jax/data/annotations/video_scores.py ({error!r})") from error


def _untrimmednet(path: Path) -> dict[str, dict[str, float]]:
    try:
        scores = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if scores.ndim != 2 or scores.shape[1] != 101:
        raise InputError(f"{path}: has the shape {scores.shape}, not [videos,"
                         " 101 UCF101 classes]")
    return {
        f"video_test_{row + 1:07d}": {
            name: float(values[number - 1])
            for name, number in thumos_facts.UCF101_NUMBERS.items()}
        for row, values in enumerate(scores)}
