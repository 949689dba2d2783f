"""A split into training and testing for annotations that have none.

Every class is on both sides where that is possible, a group of videos (those
of one person, for example) is never divided, and videos keep the side that
they had before, so that a split stays when videos are added.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from losa_jax.errors import InputError

TRAINING, TESTING = "training", "testing"
SIDES = (TRAINING, TESTING)
# Counts the videos of a class beside the classes themselves.
_ALL = ""


def group_of(video_id: str, pattern: str) -> str:
    """Returns what the first group of a pattern matches in an id; the id
    itself without a match or a pattern."""
    try:
        match = re.search(pattern, video_id) if pattern else None
    except re.error as error:
        raise InputError(f"--group={pattern}: no regular expression "
                         f"({error})") from error
    if match is None:
        return video_id
    return (match[1] if match.re.groups else match[0]) or video_id


def split(labels: Mapping[str, Sequence[str]], *, group: str = "",
          share: float = 0.2, seed: int = 0,
          known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the side of each video.

    Args:
      labels: {video id: labels of its actions}.
      group: a pattern for `group_of`; "" splits by video.
      share: of the videos that are for testing.
      seed: of the order among equal groups.
      known: {video id: side} of an earlier split, which is kept.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for video in sorted(labels):
        groups[group_of(video, group)].append(video)
    # In how many groups a class is; {group: classes in it}.
    classes = {name: {_ALL, *(label for video in videos
                              for label in labels[video])}
               for name, videos in groups.items()}
    totals = Counter(label for one in classes.values() for label in one)
    wanted = {label: {TESTING: max(1, round(share * count))
                      if count > 1 and share > 0 else 0}
              for label, count in totals.items()}
    for label, count in totals.items():
        wanted[label][TRAINING] = count - wanted[label][TESTING]
    sides = _kept(groups, known or {})
    for name, side in sides.items():
        for label in classes[name]:
            wanted[label][side] -= 1

    order = sorted(set(groups) - set(sides))
    random.Random(seed).shuffle(order)
    left = Counter(label for name in order for label in classes[name])
    waiting = {label: iter([name for name in order if label in classes[name]])
               for label in left}
    while left:
        # The rarest class decides first: it has the fewest ways.
        rarest = min(left, key=lambda label: (left[label], label))
        name = next(one for one in waiting[rarest] if one not in sides)
        sides[name] = max(SIDES, key=lambda side: (
            wanted[rarest][side] / max(1, totals[rarest]),
            sum(wanted[label][side] > 0 for label in classes[name]),
            wanted[_ALL][side]))
        for label in classes[name]:
            wanted[label][sides[name]] -= 1
        left -= Counter(classes[name])
    if share > 0:
        _repair(sides, classes, set(groups) - set(_kept(groups, known or {})))
    return {video: sides[name] for name, videos in groups.items()
            for video in videos}


def _kept(groups: Mapping[str, Sequence[str]], known: Mapping[str, str]
          ) -> dict[str, str]:
    """Returns the side of groups that have a video with one; InputError where
    a group was divided."""
    sides: dict[str, str] = {}
    for name, videos in groups.items():
        before = {known[video] for video in videos if video in known}
        if len(before) > 1:
            raise InputError(
                f"--group: the earlier split has videos of the group {name!r} "
                "on both sides: split again, with --resplit")
        if before:
            sides[name] = before.pop()
    return sides


def _repair(sides: dict[str, str], classes: Mapping[str, set[str]],
            free: set[str]) -> None:
    """Moves groups that may move for classes that are on one side only."""
    def count(label: str, side: str) -> int:
        return sum(label in classes[name] and one == side
                   for name, one in sides.items())

    for label in sorted({one for each in classes.values() for one in each}):
        for side, other in (SIDES, SIDES[::-1]):
            if count(label, side) or count(label, other) < 2:
                continue
            movable = [name for name in sorted(free)
                       if sides[name] == other and label in classes[name]
                       and all(count(one, other) > 1
                               for one in classes[name])]
            if movable:
                sides[min(movable, key=lambda name: len(classes[name]))] = side


def one_sided(labels: Mapping[str, Sequence[str]], sides: Mapping[str, str]
              ) -> dict[str, str]:
    """Returns {label: the only side that has it}."""
    seen: dict[str, set[str]] = defaultdict(set)
    for video, names in labels.items():
        for name in names:
            seen[name].add(sides[video])
    return {name: next(iter(one)) for name, one in sorted(seen.items())
            if len(one) == 1}
