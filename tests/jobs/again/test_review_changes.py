"""What a review changed is counted by its verdicts."""

import pytest

from losa_jax.data.reviews import ACCEPTED, REJECTED, JudgedAction, Review
from losa_jax.jobs.again.review_changes import (
    ReviewChanges,
    newest_verdict,
    review_changes,
)

EARLY, LATE = "2026-11-30T14:00:00+00:00", "2026-11-30T15:30:00+01:00"


def _action(number, verdict=ACCEPTED, detected=(1.0, 2.0, "jump"),
            segment=(1.0, 2.0), label="jump", when=LATE):
    return JudgedAction(f"d{number:012x}", label, *segment, verdict, "ann",
                        when, detected=detected)


REVIEWS = [
    Review("one", 9.0, 25.0, actions=(
        _action(1), _action(2, segment=(1.0004, 2.0)),
        _action(3, segment=(0.5, 2.25)), _action(4, segment=(1.0, 1.75)),
        _action(5, label="run", segment=(0.0, 2.0)),
        _action(6, label="run"), _action(7, detected=None))),
    Review("two", 9.0, 25.0, actions=(
        _action(8, REJECTED), _action(9, when=EARLY),
        _action(10, detected=None, when=EARLY))),
    Review("three", 9.0, 25.0, is_complete=True)]


def test_all_verdicts_are_counted():
    assert review_changes(REVIEWS) == ReviewChanges(
        num_videos=2, accepted=3, moved=3, relabeled=2, added=2, rejected=1,
        median_shift_seconds=0.5, largest_shift_seconds=1.0)
    assert review_changes([]) == ReviewChanges()


def test_only_verdicts_after_a_time_are_counted():
    """The zones of the times differ: LATE is half an hour after EARLY."""
    assert newest_verdict(REVIEWS) == LATE
    assert newest_verdict([]) == newest_verdict(REVIEWS[2:]) == ""
    changes = review_changes(REVIEWS, since=EARLY)
    assert (changes.accepted, changes.added, changes.rejected) == (2, 1, 1)
    assert review_changes(REVIEWS, since=LATE) == ReviewChanges()


def test_a_time_without_a_zone_or_that_is_none_is_no_error():
    naive = [Review("one", 9.0, 25.0, actions=(
        _action(1, when="2026-11-30T14:10:00"), _action(2, when="?"),
        _action(3, when=EARLY)))]
    assert newest_verdict(naive) == "2026-11-30T14:10:00"
    assert review_changes(naive, since=EARLY).accepted == 1
    assert review_changes(naive).accepted == 3


@pytest.mark.parametrize("changes, text", [
    (ReviewChanges(1, 4, rejected=2), "in 1 videos 4 accepted unchanged, "
     "0 moved, 0 relabeled, 0 added, 2 rejected"),
    (ReviewChanges(2, 0, 3, median_shift_seconds=.25,
                   largest_shift_seconds=1.5),
     "3 moved (median 0.25 s, largest 1.50 s), 0 relabeled")])
def test_a_line_says_what_changed(changes, text):
    assert text in str(changes)
