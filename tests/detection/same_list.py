"""When two lists of detections are the same."""

import numpy as np


def assert_same_list(ours, stored, tolerance=0.02):
    """The rule of the fixtures' README: every stored row has a partner.

    Args:
      ours: segments, scores, labels.
      stored: the same, by name.
      tolerance: of the ends, in the segments' unit.
    """
    segments, scores, labels = map(np.asarray, ours)
    assert len(scores) == len(stored["scores"])
    assert (np.diff(scores) <= 0).all()
    free = np.ones(len(scores), bool)
    for segment, score, label in zip(stored["segments"], stored["scores"],
                                     stored["labels"], strict=True):
        near = (free & (labels == label)
                & (np.abs(segments - segment) <= tolerance).all(axis=1)
                & (np.abs(scores - score) <= max(1e-3 * score, 1e-5)))
        assert near.any(), (segment, score, label)
        # The closest, so that no partner is taken from a later row.
        free[np.argmin(np.where(near, np.abs(scores - score), np.inf))] = 0


def stored_list(data, name):
    return {part: data[f"{name}/{part}"]
            for part in ("segments", "scores", "labels")}
