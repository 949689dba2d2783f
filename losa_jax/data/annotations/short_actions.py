"""Leaves out actions that are too short to be trained on, as OpenTAD does for
ActivityNet."""

import dataclasses
import logging
from collections.abc import Sequence

from losa_jax.data.records import Video
from losa_jax.errors import InputError

logger = logging.getLogger(__name__)


def without_short_actions(videos: Sequence[Video], min_share: float
                          ) -> tuple[Video, ...]:
    """Returns training videos without the actions of at most `min_share` of
    their video's length, without exact duplicates, and without the videos
    that have no action and no hard negative then; logs how many these are.

    With 0 nothing changes. InputError if no video is left.
    """
    if not min_share:
        return tuple(videos)
    short = duplicates = 0
    kept = []
    for video in videos:
        shortest = min_share * video.info.duration_seconds
        long = [action for action in video.actions if
                action.end_seconds - action.start_seconds > shortest]
        different = {action[:3]: action for action in long}.values()
        short += len(video.actions) - len(long)
        duplicates += len(long) - len(different)
        if different or video.hard_negatives:
            kept.append(dataclasses.replace(video, actions=tuple(different)))
    if not kept:
        raise InputError(
            f"config.data.min_action_share={min_share} leaves no action to "
            f"train on in {len(videos)} videos: lower it")
    if short or duplicates or len(kept) < len(videos):
        logger.warning(
            "training leaves out %d actions of at most %g %% of their video's "
            "length, %d duplicates, and %d of %d videos, which have no other "
            "action (config.data.min_action_share=%g)", short, 100 * min_share,
            duplicates, len(videos) - len(kept), len(videos), min_share)
    return tuple(kept)
