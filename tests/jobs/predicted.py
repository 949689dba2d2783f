"""Reads predictions.json to compare those of two jobs."""

import json


def results(path):
    """Returns {video id: rows} of a file."""
    return json.loads(path.read_text())["results"]


def scores(rows):
    """Returns the sorted scores of rows, of which there must be some."""
    assert len(rows) > 10
    return sorted(row["score"] for row in rows)
