"""Timelines are drawn whatever the names are."""

import pytest
from matplotlib import image

from losa_jax.report.plots import plot_timeline


@pytest.mark.parametrize("duration_seconds", [0.04, 3.0, 14400.0])
def test_a_timeline_has_a_bar_for_each_detection(tmp_path, duration_seconds):
    path = tmp_path / "a.png"
    plot_timeline([{"label": "cost $5_$", "score": 1.0, "start_seconds": 0.0,
                    "end_seconds": duration_seconds / 2},
                   {"label": "跳", "score": 0.0,
                    "start_seconds": duration_seconds / 2,
                    "end_seconds": duration_seconds}],
                  path, title="$a", duration_seconds=duration_seconds)
    drawn = image.imread(path)[..., :3]
    # The full score of the first row is the only solid color.
    green = (abs(drawn - [0, 158 / 255, 115 / 255]) < 0.01).all(-1)
    columns = green.any(0).nonzero()[0]
    width = drawn.shape[1]
    assert 0.25 * width < len(columns) < 0.55 * width


def test_a_timeline_without_detections_says_so(tmp_path):
    plot_timeline([], tmp_path / "a.png", title="a", duration_seconds=2.0)
    assert (image.imread(tmp_path / "a.png")[..., :3] < 0.2).any()
