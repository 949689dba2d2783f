"""The editor in a real browser: keys, dragging, two windows, speed."""

import contextlib
import json
import time

import av
import numpy as np
import pytest

from losa_jax.data.reviews import read_review
from tests.jobs.review.conftest import write_video
from tests.report.conftest import FPS, SECONDS
from tests.report.test_browser import _pixels, _ready, _time, _until

PlaywrightError = (pytest.importorskip(
    "playwright.sync_api", reason="needs the extra `browser`")).Error
pytestmark = pytest.mark.browser

EVIL = "<script>alert(1)</script>"
ROWS = [(1.0, 2.0, "jump", 0.9), (3.0, 4.0, "jump", 0.55),
        (2.0, 2.5, "wave", 0.8), (4.5, 5.0, "wave", 0.1)]


@pytest.fixture
def open_page(browser):
    """open_page(address) opens a page; what the console shows fails the
    test, except for the answers named in `expected`."""
    pages, messages, expected = [], [], []

    def start(address, width=1280, height=900, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": height},
                                color_scheme=scheme)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(address)
        pages.append(page)
        return page

    start.expected = expected
    yield start
    for page in pages:
        page.close()
    assert [one for one in messages
            if not any(part in one for part in expected)] == []


@pytest.fixture
def folder(tmp_path, video):
    write_video(tmp_path / "out", "a", ROWS, video)
    return tmp_path / "out"


@pytest.fixture
def client(serve, folder):
    return serve(folder)


@pytest.fixture
def view(client, open_page):
    view = open_page(f"{client.server.address}video/0")
    _ready(view)
    return view


def _press(view, *keys):
    for key in keys:
        view.keyboard.press(key)


def _saved(view, folder, name="a"):
    """Returns what is on the disk, once the page says so."""
    _until(view, "review.isSaved")
    return read_review(folder / "reviews" / f"{name}.json")


def _brief(actions):
    return [(one.label, round(one.start_seconds, 3),
             round(one.end_seconds, 3), one.verdict) for one in actions]


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
            _press(view, "a")
            count += 1
        with view.expect_navigation():
            _press(view, "f")
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


def test_keys_correct_an_action(view, folder):
    assert view.title() == "(0/3) a"
    # The first to check is chosen, and the player is there.
    assert "jump, 0:01.0 to 0:02.0" in view.locator("#chosen").inner_text()
    assert _time(view) == pytest.approx(1.0, abs=1e-3)
    _press(view, "[", "]", "]", "}", "2")
    assert _brief(_saved(view, folder).actions) == [
        ("wave", 1.1, 2.1, "accepted")]
    # Undo and redo, step by step.
    _press(view, "Control+z", "Control+z")
    assert _brief(_saved(view, folder).actions) == [
        ("jump", 1.1, 2.0, "accepted")]
    _press(view, "Control+y", "Control+Shift+Z")
    assert _brief(_saved(view, folder).actions) == [
        ("wave", 1.1, 2.1, "accepted")]
    for _ in range(5):
        _press(view, "Control+z")
    assert _saved(view, folder).actions == ()
    assert view.title() == "(0/3) a"


def test_a_key_that_is_held_accepts_once(view, folder):
    for _ in range(4):
        view.keyboard.down("a")
    view.keyboard.up("a")
    assert len(_saved(view, folder).accepted) == 1
    view.keyboard.down("ArrowRight")
    view.keyboard.down("ArrowRight")  # moving repeats
    view.keyboard.up("ArrowRight")
    assert _time(view) == pytest.approx(2.2, abs=2e-3)


def test_keys_reject_split_merge_and_add(view, folder):
    _press(view, "n", "x")  # the wave at 2 s; on to the jump at 3 s
    assert "jump, 0:03.0" in view.locator("#chosen").inner_text()
    view.evaluate("player.seek(3.4)")
    _press(view, "s")
    assert _brief(_saved(view, folder).actions) == [
        ("wave", 2.0, 2.5, "rejected"), ("jump", 3.0, 3.4, "accepted"),
        ("jump", 3.4, 4.0, "accepted")]
    _press(view, "m")
    assert _brief(_saved(view, folder).accepted) == [
        ("jump", 3.0, 4.0, "accepted")]
    # A new action between I and O, with the class of the last one.
    _press(view, "Escape")
    view.evaluate("player.seek(5.0)")
    _press(view, "i")
    view.evaluate("player.seek(5.5)")
    _press(view, "o", "2")
    assert _brief(_saved(view, folder).accepted)[-1] == (
        "wave", 5.0, 5.5, "accepted")
    # What a person added is removed, not rejected.
    _press(view, "Delete")
    assert len(_saved(view, folder).actions) == 2
    # I and O also move the edges of the chosen action.
    view.locator("#list .entry", has_text="0:01.0").click()
    view.evaluate("player.seek(1.3)")
    _press(view, "i")
    view.evaluate("player.seek(1.8)")
    _press(view, "o")
    assert ("jump", 1.3, 1.8, "accepted") in _brief(
        _saved(view, folder).actions)


def test_merging_detections_makes_no_hard_negative(view, folder):
    _press(view, "m")
    review = _saved(view, folder)
    assert _brief(review.accepted) == [("jump", 1.0, 4.0, "accepted")]
    assert review.hard_negatives == ()
    assert view.title() == "(2/3) a"  # nor is it still to check


def test_an_edge_and_an_action_can_be_dragged(view, folder):
    def drag(x, y, to_x, to_y):
        view.mouse.move(x, y)
        view.mouse.down()
        view.mouse.move((x + to_x) / 2, (y + to_y) / 2, steps=3)
        view.mouse.move(to_x, to_y, steps=3)
        view.mouse.up()

    second = view.evaluate("timeline.lanesWidth / data.duration")
    box = view.get_by_label("jump, 0:01.0 to 0:02.0").last.bounding_box()
    middle = box["y"] + box["height"] / 2
    right = box["x"] + box["width"]
    drag(right - 2, middle, right - 2 + 0.52 * second, middle)
    # Edges snap to frames, of 0.1 s.
    assert _brief(_saved(view, folder).actions) == [
        ("jump", 1.0, 2.5, "accepted")]
    # The keys are still those of the page.
    before = _time(view)
    _press(view, "ArrowRight")
    assert before < _time(view) <= before + 0.11
    # The whole action, into the row of another class.
    wave = view.locator(".lanes[data-label='1']").bounding_box()
    drag(box["x"] + box["width"] / 2, middle,
         box["x"] + box["width"] / 2 + second, wave["y"] + wave["height"] / 2)
    assert _brief(_saved(view, folder).actions) == [
        ("wave", 2.0, 3.5, "accepted")]
    # Over an empty part, a new action.
    lane = view.locator(".lanes[data-label='0'] .lane").last.bounding_box()
    drag(lane["x"] + 5.02 * second, middle, lane["x"] + 5.48 * second, middle)
    assert _brief(_saved(view, folder).actions)[-1] == (
        "jump", 5.0, 5.5, "accepted")
    assert view.locator("#chosen").inner_text().startswith("jump, 0:05.0")
    # A click without a move only seeks.
    view.mouse.click(lane["x"] + 4.5 * second, middle)
    assert _time(view) == pytest.approx(4.5, abs=0.02)
    assert len(_saved(view, folder).actions) == 2


def test_live_marking_by_holding_the_key_of_a_class(view, folder):
    view.evaluate("$('reaction').value = 0.4")
    view.evaluate("player.seek(0.5)")
    _until(view, "!player.video.seeking")
    _press(view, "r")
    assert view.locator("#live-sign").is_visible()
    view.keyboard.down("2")  # plays, too
    _until(view, "player.time > 1.2")
    view.keyboard.up("2")
    _until(view, "review.isSaved")
    _press(view, "Escape")
    action, = _saved(view, folder).actions
    assert action.label == "wave" and action.model is None
    assert action.start_seconds == pytest.approx(0.1, abs=0.11)
    assert 0.7 <= action.end_seconds <= 2.2
    assert not view.locator("#live-sign").is_visible()


def test_a_second_window_does_not_overwrite_the_first(
        view, folder, client, open_page):
    open_page.expected.append("409")  # the browser's own line
    other = open_page(f"{client.server.address}video/0")
    _press(view, "a")
    _until(view, "review.isSaved")
    _press(other, "x")
    other.locator("#problem").wait_for()
    assert "another window" in other.locator("#problem").inner_text()
    assert _brief(_saved(other, folder).actions) == [
        ("jump", 1.0, 2.0, "accepted")]
    # It shows the newer state, and goes on from there.
    assert other.title() == "(1/3) a"
    _press(other, "n", "a")
    assert len(_saved(other, folder).accepted) == 2


def test_a_change_waits_while_the_server_is_away(view, folder, open_page):
    open_page.expected.append("ERR_")
    view.route("**/video/0", lambda route: route.abort())
    _press(view, "a", "a")
    view.locator("#problem").wait_for()
    assert "not saved yet" in view.locator("#problem").inner_text()
    assert view.locator("#saved").inner_text() == "not saved"
    view.unroute("**/video/0")
    _until(view, "review.isSaved")
    assert len(_saved(view, folder).accepted) == 2
    assert not view.locator("#problem").is_visible()


def test_many_are_accepted_after_a_count(view, folder):
    view.locator("#bulk-open").click()
    view.locator("#bulk-score").fill("0.6")
    assert view.locator("#bulk-count").inner_text() == (
        "2 detections of this video")
    view.locator("#bulk-accept").click()
    assert len(_saved(view, folder).accepted) == 2
    _press(view, "Control+z")
    assert _saved(view, folder).actions == ()


def test_many_are_accepted_in_all_videos(client, folder, open_page):
    view = open_page(client.server.address)
    view.locator("#many-score").fill("0.5")
    _until(view, "$('many-count').textContent === '3 detections in 1 videos'")
    with view.expect_navigation():
        view.locator("#many-form button").click()
    assert len(read_review(folder / "reviews" / "a.json").accepted) == 3
    assert "0 detections to check" in view.locator(".facts").inner_text()


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
    _press(view, "n")
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
            _press(view, "a")
        if len(seen) == 5:
            break
    assert seen == [0.51, 0.52, 0.55, 0.6, 0.9]
    _until(view, "$('hint').textContent === 'nothing is left to check'")


def test_the_keys_are_those_of_the_page_after_the_pointer(view, folder):
    view.locator("#rows .segment").first.click()
    view.locator("#verdicts").select_option("open")
    view.get_by_role("button", name="Repeat").click()
    view.locator("#rows .segment").first.click()
    time_before = _time(view)
    _press(view, "ArrowRight")
    assert _time(view) == pytest.approx(time_before + 0.1, abs=2e-3)
    view.locator("#start").fill("1.2")
    _press(view, "Enter", "a")
    assert _brief(_saved(view, folder).actions) == [
        ("jump", 1.2, 2.0, "accepted")]


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


def test_a_new_class_is_typed(view, folder):
    _press(view, "c")
    view.keyboard.type(EVIL)
    _press(view, "Enter")
    assert _saved(view, folder).actions[0].label == EVIL
    _press(view, "n", "3")  # it has a key now
    assert [one.label for one in _saved(view, folder).actions] == [EVIL, EVIL]
    view.reload()
    _ready(view)
    assert view.locator("#rows .name .text").all_inner_texts() == [
        "jump", "wave", EVIL]


def test_a_video_that_the_browser_cannot_play_is_decoded_here(
        serve, open_page, tmp_path):
    path = tmp_path / "old.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(SECONDS * FPS):
            frame = av.VideoFrame.from_ndarray(np.full(
                (48, 64, 3), 40 * (index // FPS), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    write_video(tmp_path / "out", "old", ROWS, path)
    client = serve(tmp_path / "out")
    view = open_page(f"{client.server.address}video/0")
    view.locator("#still").wait_for()
    assert "decoded here" in view.locator("#failure").inner_text()

    def gray_is(value):
        for _ in range(100):
            shot = _pixels(view.locator("#still").screenshot())
            height, width, _ = shot.shape
            if abs(shot[height // 2, width // 2].mean() - value) < 30:
                return True
            view.wait_for_timeout(50)
        return False

    assert gray_is(40)  # at the first action, at 1 s
    view.evaluate("player.seek(2.5); player.seek(4.5)")
    assert gray_is(160)  # the last one asked for
    view.evaluate("player.seek(1.5)")
    _press(view, "Space")
    _until(view, "player.time > 2.3")
    _press(view, "Space", "a")
    assert not view.evaluate("player.playing")
    assert len(_saved(view, tmp_path / "out", "old").accepted) == 1


def test_the_page_works_with_a_screen_reader(view, client, open_page):
    tree = view.locator("body").aria_snapshot()
    for line in ('region "Player"', 'region "Timeline"', 'list "Classes"',
                 'slider "Playing position"', 'group "Chosen action"',
                 'button "Accept A"', 'button "Undo"', 'spinbutton "Start"',
                 'jump, 0:01.0 to 0:02.0, score 0.90, to check', "main"):
        assert line in tree, f"{line}\n{tree}"
    for page in (view, open_page(client.server.address)):
        unnamed = page.evaluate("""[...document.querySelectorAll(
            "button, input, select, video, [role=slider]")].filter((one) =>
            !(one.ariaLabel || one.innerText || one.textContent ||
              one.labels?.length)).map((one) => one.outerHTML)""")
        assert unnamed == []
        assert page.locator("img:not([alt])").count() == 0
    # What a key did is read out.
    _press(view, "a")
    assert "wave, 0:02.0" in view.locator("#announcer").inner_text()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_and_follow_the_scheme(client, open_page, width, scheme):
    for path in ("", "video/0"):
        view = open_page(client.server.address + path, width, scheme=scheme)
        pixels = _pixels(view.screenshot(full_page=True))
        assert pixels.shape[1] == width
        corner = pixels[2, 2].mean()
        assert corner > 230 if scheme == "light" else corner < 30
    assert view.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("zoom", [1, 60])
def test_of_two_thousand_actions_few_are_elements(serve, open_page, tmp_path,
                                                  zoom):
    """`benchmarks.review_page` measures the time of a frame."""
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, 3500, 2000)
    write_video(tmp_path / "out", "long", [
        (start, start + 3, f"class {number % 8}", 0.9)
        for number, start in enumerate(starts)], seconds=3600, fps=25,
        shown_from={})
    client = serve(tmp_path / "out")
    view = open_page(f"{client.server.address}video/0")
    view.evaluate(f"timeline.setZoom({zoom}, 1800)")
    for position in ("0", "1e6"):
        view.evaluate(f"$('scroller').scrollLeft = {position}")
        view.wait_for_timeout(200)
        assert view.locator("#rows .segment").count() < 500
    assert view.evaluate("timeline.lanes.flat().length") == 2000