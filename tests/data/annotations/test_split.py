"""The split of annotations that have no subsets."""

import random

import pytest

from losa_jax.data.annotations.split import (
    TESTING,
    group_of,
    one_sided,
    split,
)
from losa_jax.errors import InputError


def _labels(seed, count=30):
    random_ = random.Random(seed)
    return {f"p{random_.randint(1, 9)}_v{number}": random_.choices(
        "abcdefgh", weights=(9, 7, 5, 3, 2, 1, 1, 1), k=random_.randint(0, 4))
            for number in range(count)}


@pytest.mark.parametrize("seed", range(20))
def test_classes_of_several_videos_are_on_both_sides(seed):
    labels = _labels(seed)
    sides = split(labels, seed=seed)
    assert sides == split(dict(reversed(labels.items())), seed=seed)
    assert 4 <= list(sides.values()).count(TESTING) <= 9
    for label in one_sided(labels, sides):
        assert sum(label in names for names in labels.values()) == 1


@pytest.mark.parametrize("seed", range(20))
def test_groups_stay_together_and_videos_keep_their_side(seed):
    labels, pattern = _labels(seed), r"(p\d)_"
    sides = split(labels, group=pattern, seed=seed)
    for group in {group_of(name, pattern) for name in labels}:
        assert len({sides[name] for name in labels
                    if name.startswith(group + "_")}) == 1
    more = {**labels, "p3_new": ["a"], "q_new": ["z"], "q_other": ["z"]}
    later = split(more, group=pattern, seed=seed + 1, known=sides)
    assert {name: later[name] for name in sides} == sides
    assert later["q_new"] != later["q_other"]


def test_groups_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="no regular expression"):
        split({"a": []}, group="(")
    with pytest.raises(InputError, match="group 'p1' on both sides"):
        split({"p1_a": [], "p1_b": []}, group=r"(p\d)_",
              known={"p1_a": "training", "p1_b": "testing"})


def test_small_and_odd_sets_are_split():
    assert split({}) == {}
    assert split({"a": ["x"]}) == {"a": "training"}
    assert sorted(split({"a": ["x"], "b": ["x"]}).values()) == [
        "testing", "training"]
    assert set(split(_labels(0), share=0.0).values()) == {"training"}


def test_twenty_thousand_videos_are_split_by_class():
    labels = _labels(0, 20_000)
    sides = split(labels)
    for label in "abcdefgh":
        names = [name for name, one in labels.items() if label in one]
        tested = sum(sides[name] == TESTING for name in names)
        assert tested == pytest.approx(0.2 * len(names), rel=0.05)
