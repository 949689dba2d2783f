"""Leaves out hard negatives that no model can learn."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Collection, Mapping

from losa_jax.data.records import AnnotatedVideo
from losa_jax.errors import counted

logger = logging.getLogger(__name__)


def without_unknown_negatives(videos: Mapping[str, AnnotatedVideo],
                              class_names: Collection[str], where: str
                              ) -> dict[str, AnnotatedVideo]:
    """Returns videos without the hard negatives of classes that no action
    has, with a warning: a model cannot learn such a class."""
    left_out = Counter(action.label for video in videos.values()
                       for action in video.hard_negatives
                       if action.label not in class_names)
    if not left_out:
        return dict(videos)
    logger.warning(
        "%s: left out because no action has their class: %s: %s", where,
        counted(left_out.total(), "rejected segment"),
        ", ".join(f"{label} ({count})" for label, count in left_out.items()))
    return {name: dataclasses.replace(video, hard_negatives=tuple(
        action for action in video.hard_negatives
        if action.label in class_names)) for name, video in videos.items()}
