"""The pages of a split, from predictions that are known."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest

from configs.common import get_config
from losa_jax import timeline
from losa_jax.data.records import Action, Video
from losa_jax.data.video.decode import VideoInfo
from losa_jax.data.windows.skipped_videos import BrokenVideos
from losa_jax.detection.metrics import evaluate_map
from losa_jax.detection.segments import Detection
from losa_jax.jobs.evaluate import report_results
from losa_jax.jobs.report import (
    _rank,
    _with_page,
    worst_first,
    write_split_report,
)
from losa_jax.report.dashboard import RankedVideo
from losa_jax.report.page import read_video_page

CLASSES = ("jump", "run")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Videos with all, half and no actions detected."""
    folder = tmp_path_factory.mktemp("split")
    truth = {"good": [(1.0, 2.0, "jump"), (4.0, 6.0, "run")],
             "odd/../<b>": [(1.0, 2.0, "jump"), (5.0, 6.0, "jump")],
             "empty": []}
    predictions = {
        "good": [Detection(1.0, 2.0, "jump", 0.9),
                 Detection(4.0, 6.0, "run", 0.8),
                 Detection(7.0, 8.0, "run", 0.1)],
        "odd/../<b>": [Detection(1.0, 2.0, "jump", 0.7),
                       Detection(8.0, 9.0, "jump", 0.95)],
        "empty": [Detection(0.0, 1.0, "run", 0.6)]}
    videos = [Video(
        name, VideoInfo(folder / f"{number}.npy", 25.0, 250, 10.0, 0, 0),
        timeline.SampleGrid(25.0, 250, 1.0),
        tuple(Action(*action) for action in truth[name]))
        for number, name in enumerate(truth)]
    result = evaluate_map(truth, predictions, class_names=CLASSES,
                          tiou_thresholds=(0.5, 0.75))
    report_results(folder, get_config(), result, predictions, BrokenVideos(),
                   checkpoint="best", step=1)
    (folder / "thresholds.json").write_text(json.dumps(
        {"jump": {"score": 0.5}, "run": {"score": 0.5}}))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        index = write_split_report(
            folder, title="a run", scores=result, videos=videos,
            videos_folder="", truth=truth, predictions=predictions,
            workdir=folder, facts=["subset <testing>"])
    return index, result, printed.getvalue()


def test_every_video_is_linked_worst_first(report):
    index, _, _ = report
    text = index.read_text()
    rows = re.findall(r'<tr data-name="([^"]*)"><th scope="row">'
                      r'<a href="([^"]*)">.*?</a></th>(.*?)</tr>', text)
    cells = {name: re.findall("<td>(.*?)</td>", rest)
             for name, _, rest in rows}
    # length, mAP, actions, found, false, detections
    assert list(cells) == ["odd/../&lt;b&gt;", "good", "empty"]
    assert cells["good"] == ["0:10.0", "100.00", "2", "2", "0", "3"]
    # The false one ranks first: precision 1/2 at recall 1/2.
    assert cells["odd/../&lt;b&gt;"] == ["0:10.0", "25.00", "2", "1", "1",
                                         "2"]
    assert cells["empty"] == ["0:10.0", "–", "0", "0", "1", "1"]
    pages = sorted((index.parent / "videos").iterdir())
    assert len(pages) == 3  # no id reached outside
    assert {read_video_page(page).title for page in pages} == {
        "good", "odd/../<b>", "empty"}


def test_the_page_of_the_worst_video_is_named(report):
    _, _, printed = report
    page, = re.findall(r"page of the worst video \(average mAP 25.0 %\): (.+)",
                       printed)
    assert read_video_page(Path(page)).title == "odd/../<b>"


def test_the_dashboard_shows_the_scores(report):
    index, result, _ = report
    text = index.read_text()
    assert f"{100 * result.average_map:.2f} %" in text
    assert "subset &lt;testing&gt;" in text and "<testing>" not in text
    titles = re.findall(r"<figcaption><h3>(.*?)</h3>", text)
    assert titles[:2] == ["Prediction categories at tIoU 0.5, %",
                          "Cost of errors, points of average mAP"]
    assert len(titles) == 5
    folder = index.parent / "diagnosis"
    assert json.loads((folder / "diagnosis.json").read_text())
    assert titles[0] in (folder / "diagnosis.html").read_text("utf-8")
    assert 'href="./diagnosis/"' in text


def test_of_many_videos_the_worst_and_the_best_have_pages():
    scores = [0.5, None, 0.9, 0.1, 0.7, 0.3]
    ranked = worst_first([
        RankedVideo(f"v{index}", 1.0, 1, 1, score, 0, 0, None)
        for index, score in enumerate(scores)])
    assert [one.title for one in ranked] == ["v3", "v5", "v0", "v4", "v2",
                                             "v1"]
    assert _with_page(ranked, 3) == [0, 1, 4]
    assert _with_page(ranked, 0) == [0, 1, 2, 3, 4, 5]
    # No more than there are with actions, none of them twice.
    assert _with_page(ranked[4:], 1) == [0]
    assert _with_page(ranked[3:], 2) == [0, 1]


def test_actions_too_short_to_be_scored_are_no_classes_of_a_video():
    video = Video("short", VideoInfo("-", 25.0, 250, 10.0, 0, 0),
                        timeline.SampleGrid(25.0, 250, 1.0), ())
    ranked = _rank(video, [(0.0, 0.0005, "jump"), (1.0, 2.0, "run")],
                   [Detection(1.0, 2.0, "run", 0.7),
                    Detection(3.0, 4.0, "jump", 0.9)], CLASSES, (0.5,), {})
    # The prediction of a class without actions here is counted as false.
    assert ranked.average_map == 1.0
    assert (ranked.num_matched, ranked.num_false) == (1, 1)
