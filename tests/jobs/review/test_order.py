"""The way through many detections in a real browser: order, filters, bulk."""

import contextlib
import json
import time

import pytest

from losa_jax.data.reviews import read_review
from tests.jobs.review.conftest import press, saved, write_video
from tests.report.test_browser import _ready, _until

PlaywrightError = (pytest.importorskip(
    "playwright.sync_api", reason="needs the extra `browser`")).Error
pytestmark = pytest.mark.browser


def test_twenty_right_predictions_take_at_most_26_keys(
        serve, open_page, tmp_path, video):
    out = tmp_path / "out"
    for number in range(5):
        write_video(out, f"v{number}", [
            (one + 0.1, one + 0.9, "jump", 0.6 + 0.05 * one + 0.01 * number)
            for one in range(4)], video)
    client = serve(out)
    view = open_page(f"{client.server.address}video/0")
    _ready(view)
    count, seen = 0, []
    started = time.monotonic()
    while "/video/" in view.url:
        seen.append(view.url)
        while view.evaluate("nextOpen(1, null) !== undefined"):
            press(view, "a")
            count += 1
        with view.expect_navigation():
            press(view, "f")
        count += 1
        if "/video/" in view.url:
            _ready(view)
    assert count <= 26
    assert time.monotonic() - started < 60
    assert len(set(seen)) == 5
    for number in range(5):
        review = read_review(out / "reviews" / f"v{number}.json")
        assert review.is_complete and len(review.accepted) == 4
    assert len(json.loads((out / "reviewed.json").read_text())[
        "database"]) == 5
    assert "5 complete" in view.locator(".facts").inner_text()


def test_many_are_accepted_after_a_count(view, folder):
    view.locator("#bulk-open").click()
    view.locator("#bulk-score").fill("0.6")
    assert view.locator("#bulk-count").inner_text() == (
        "2 detections of this video")
    view.locator("#bulk-accept").click()
    assert len(saved(view, folder).accepted) == 2
    press(view, "Control+z")
    assert saved(view, folder).actions == ()


def test_only_what_is_shown_to_check_is_accepted_in_bulk(view, folder):
    view.locator("#bulk-open").click()
    view.locator("#bulk-score").fill("0")
    assert view.locator("#bulk-count").inner_text() == (
        "3 detections of this video")  # not the one below its threshold
    view.locator("#bulk-score").fill("")
    view.locator("#bulk-accept").click()
    assert view.locator("#bulk").is_visible()  # a score is asked for
    press(view, "Escape")
    assert not (folder / "reviews").exists()


def test_many_are_accepted_in_all_videos(client, folder, open_page):
    view = open_page(client.server.address)
    view.locator("#many-score").fill("0.5")
    _until(view, "$('many-count').textContent === '3 detections in 1 videos'")
    with view.expect_event("load"):
        view.locator("#many-accept").click()
    assert len(read_review(folder / "reviews" / "a.json").accepted) == 3
    assert "0 detections to check" in view.locator(".facts").inner_text()
    assert "3 detections in 1 videos accepted" in (
        view.locator("#many-count").inner_text())
    # It can be undone and redone, by mouse and by keys.
    for act, number in ((lambda: view.locator("#undo").click(), 0),
                        (lambda: press(view, "Control+y"), 3),
                        (lambda: press(view, "Control+z"), 0),
                        (lambda: view.locator("#redo").click(), 3)):
        with view.expect_event("load"):
            act()
        assert len(read_review(folder / "reviews/a.json").accepted) == number
    assert view.locator("#redo").is_disabled()
    view.locator("#many-score").fill("")
    assert "give a score" in view.locator("#many-count").inner_text()


def test_a_refusal_to_accept_many_is_shown(client, open_page):
    open_page.expected.append("422")
    view = open_page(client.server.address)
    (client.server.store.folder / "reviews").write_text("in the way")
    view.locator("#many-accept").click()
    _until(view, "$('many-count').textContent.includes('cannot be written')")


def test_skipping_goes_through_the_doubtful_of_all_videos(
        serve, open_page, tmp_path, video):
    for number, name in enumerate("abcd"):
        write_video(tmp_path / "out", name, [
            (1, 2, "jump", 0.5 + 0.1 * number)], video)
    view = open_page(f"{serve(tmp_path / 'out').server.address}video/0")
    view.locator("#order").select_option("all")
    for name in "bcda":
        with view.expect_navigation(url="**#d*"):
            press(view, "n")
        _ready(view)
        assert view.locator("h1").inner_text() == name


def test_the_most_doubtful_come_first_across_videos(
        serve, open_page, tmp_path, video):
    scores = {"a": (0.9, 0.52), "b": (0.51, 0.6), "c": (0.55, 0.2)}
    for name, some in scores.items():
        write_video(tmp_path / "out", name, [
            (1 + number, 1.5 + number, "jump", score)
            for number, score in enumerate(some)], video)
    client = serve(tmp_path / "out")
    view = open_page(f"{client.server.address}video/0")
    view.locator("#order").select_option("all")
    view.locator("#rows").click()  # the keys are the page's again
    with view.expect_navigation():
        press(view, "n")
    seen, last = [], None
    for _ in range(400):
        view.wait_for_timeout(25)
        score = None
        with contextlib.suppress(PlaywrightError):  # between two pages
            score = view.evaluate("timeline.chosen?.verdict === 'open' ? "
                                  "timeline.chosen.score : null")
        if score not in (None, last):
            seen.append(score)
            last = score
            press(view, "a")
        if len(seen) == 5:
            break
    assert seen == [0.51, 0.52, 0.55, 0.6, 0.9]
    _until(view, "$('hint').textContent === 'nothing is left to check'")


def test_filters_and_the_order_by_doubt(view):
    def names():
        return view.locator("#list .what").all_inner_texts()

    assert len(names()) == 3  # those that reach their class's threshold
    view.locator("#order").select_option("doubt")
    assert [name.split("\n")[1][:6] for name in names()] == [
        "0:03.0", "0:01.0", "0:02.0"]
    view.locator("#only").select_option("wave")
    assert len(names()) == 1
    view.locator("#only").select_option("")
    view.locator("#score").fill("0.05")
    assert len(names()) == 4
    view.locator("#verdicts").select_option("rejected")
    assert names() == []
