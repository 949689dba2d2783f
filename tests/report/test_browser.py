"""The pages in a real browser: what is seen, clicked and typed."""

import dataclasses
import io

import av
import numpy as np
import pytest

from losa_jax.data.video.probe import probe_video
from losa_jax.detection.diagnosis import diagnose
from losa_jax.detection.metrics import evaluate_map
from losa_jax.detection.segments import Detection
from losa_jax.report.dashboard import RankedVideo, write_split_dashboard
from losa_jax.report.page import (
    read_video_page,
    write_folder_page,
    write_video_page,
)
from tests.data.painted import number_of
from tests.data.video.test_player_clock import render
from tests.report.conftest import FPS, SECONDS

pytestmark = pytest.mark.browser

EVIL = "<script>alert(1)</script><!--"
DETECTIONS = [
    Detection(1.25, 2.5, EVIL, 0.9),
    # No browser's clock can hold this start.
    Detection(3.4999999876, 4.75, "wave", 0.6),
    Detection(3.0, 4.0, "wave", 0.2),
    Detection(0.5, 1.0, EVIL, 0.05),
]
ROWS = [one[:4] for one in DETECTIONS]
TRUTH = [(1.3, 2.5, EVIL), (5.0, 5.5, "wave")]


@pytest.fixture(scope="module")
def page(video, tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / "deep" / "page.html"
    write_video_page(path, video, title=f"{video.name} {EVIL}",
                     duration_seconds=SECONDS, fps=FPS, predictions=ROWS,
                     ground_truth=TRUTH)
    return path


def _time(view):
    return view.evaluate("document.getElementById('video').currentTime")


def _ready(view):
    _until(view, "document.getElementById('video').readyState > 1")


def _until(view, condition):
    """Asks again and again: the page's own policy forbids Playwright's
    wait_for_function, which evaluates text in it."""
    for _ in range(200):
        if view.evaluate(condition):
            return
        view.wait_for_timeout(25)
    raise AssertionError(f"never came: {condition}")


def test_a_segment_seeks_the_player_to_its_start(look, page):
    view = look(page)
    _ready(view)
    segments = view.locator("#rows .segment:not(.action)")
    assert segments.count() == 4
    view.get_by_label("wave, 0:03.5 to 0:04.8, score 0.60, false").first.click()
    assert _time(view) == pytest.approx(3.5, abs=1e-3)
    # Both segments at this time are named and highlighted.
    assert view.locator("#now li").all_inner_texts() == [
        "wave\n.60", "wave\n.20"]
    assert view.locator(".segment.playing").count() == 2
    # So does the list, and the table behind its heading.
    view.locator("#list .entry").nth(1).click()
    assert _time(view) == pytest.approx(1.25, abs=1e-3)
    view.get_by_text("As a table").click()
    view.locator("#body tr[data-id=t1] button").click()
    assert _time(view) == pytest.approx(5.0, abs=1e-3)


def test_the_video_really_plays(look, page):
    view = look(page)
    _ready(view)
    view.keyboard.press("n")
    view.keyboard.press("Space")
    _until(view, "document.getElementById('video').currentTime > 0.8")
    view.keyboard.press("k")
    assert view.evaluate("document.getElementById('video').paused")


def test_a_score_hides_what_is_below_it(look, page):
    view = look(page)
    view.locator("#score").fill("0.5")
    _until(view, "document.getElementById('shown').textContent === '2 of 4'")
    assert view.locator("#rows .segment:not(.action)").count() == 2
    assert view.locator("#list .entry").count() == 2
    assert view.locator("#body tr:not([hidden])").count() == 4
    assert view.locator("#verdict").inner_text() == (
        "1 of 2 actions detected, 1 false (tIoU 0.5)")
    # The annotated action without a detection is marked.
    assert view.locator("#rows .missed").count() == 1
    view.keyboard.press("Tab")  # out of the slider, which has its own keys
    view.keyboard.press("[")
    assert view.locator("#score-value").inner_text() == "0.45"


def test_keys_move_through_the_video_and_the_timeline(look, page):
    view = look(page)
    _ready(view)
    for key, time in (("ArrowRight", 1), ("Shift+ArrowRight", 6),
                      ("ArrowLeft", 5), ("Home", 0), (".", 0.1),
                      ("n", 0.5), ("n", 1.25), ("n", 3.0), ("p", 1.25)):
        view.keyboard.press(key)
        assert _time(view) == pytest.approx(time, abs=1e-3), key
    view.keyboard.press("+")
    assert view.locator("#zoom-value").inner_text() == "1.5×"
    view.keyboard.press("0")
    # One stop of Tab in the timeline; arrows go from segment to segment.
    assert view.locator("#rows [tabindex='0']").count() == 1
    view.locator("#rows .action").first.focus()
    view.keyboard.press("ArrowDown")
    view.keyboard.press("ArrowRight")
    view.keyboard.press("Enter")
    assert _time(view) == pytest.approx(1.25, abs=1e-3)
    view.keyboard.press("?")
    assert view.get_by_role("dialog").is_visible()


def test_untrusted_text_is_text(look, page):
    view = look(page)
    assert view.title().endswith(EVIL)
    assert view.locator("h1").inner_text().endswith(EVIL)
    assert view.locator("#rows .name .text").first.inner_text() == EVIL
    # Ours and the data; nothing that a label brought along.
    assert view.locator("script").count() == 2
    assert view.locator("main b, main i").evaluate_all(
        "all => all.every(one => !one.closest('h1'))")


def test_a_link_to_a_moment_opens_there(look, page):
    view = look(page, fragment="#t=4.5")
    _ready(view)
    assert _time(view) == pytest.approx(4.5, abs=1e-3)


def test_the_page_works_with_a_screen_reader(look, page):
    view = look(page)
    tree = view.locator("body").aria_snapshot()
    for line in ('region "Player"', 'region "Timeline"',
                 'slider "Playing position"', 'list "Classes"',
                 'slider "Score from', 'main', 'banner'):
        assert line in tree, f"{line}\n{tree}"
    # Every control has a name, and every image an alternative text.
    unnamed = view.evaluate("""[...document.querySelectorAll(
        "button, input, video, [role=slider]")].filter((one) =>
        !(one.ariaLabel || one.innerText || one.textContent ||
          one.labels?.length)).map((one) => one.outerHTML)""")
    assert unnamed == []
    assert view.locator("img:not([alt])").count() == 0


def test_a_video_that_cannot_be_played_is_reported(video, browser, tmp_path):
    broken = tmp_path / "odd.mp4"
    broken.write_bytes(b"no video at all" * 100)
    path = tmp_path / "page.html"
    write_video_page(path, broken, title="odd", duration_seconds=SECONDS,
                     fps=FPS, predictions=ROWS)
    view = browser.new_page()
    view.goto(path.as_uri())
    failure = view.locator("#failure")
    failure.wait_for()
    assert "cannot play odd.mp4" in failure.inner_text()
    # The timeline goes on with a clock of its own.
    view.keyboard.press("n")
    view.keyboard.press("n")
    assert view.locator("#clock").inner_text() == "0:01.3"
    assert view.locator("#now li").count() == 1
    view.close()


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_and_follow_the_scheme(look, page, tmp_path, width,
                                         scheme):
    folder = tmp_path / "index.html"
    write_folder_page(folder, [read_video_page(page)], title=EVIL,
                      broken={"cut.mp4": f"is cut {EVIL}"})
    for path in (page, folder, _dashboard(tmp_path, page)):
        view = look(path, width, scheme)
        # The page is drawn in the requested color scheme.
        pixels = _pixels(view.screenshot(full_page=True))
        assert pixels.shape[1] == width  # nothing is wider than the page
        corner = pixels[2, 2].mean()
        assert corner > 230 if scheme == "light" else corner < 30
        assert pixels.std() > 5


def _dashboard(tmp_path, page):
    """A dashboard with four videos, two of them with long names."""
    truth = {"v": [(1.25, 2.5, EVIL), (5.0, 5.5, "wave")]}
    detections = {"v": DETECTIONS}
    classes = (EVIL, "wave")
    scores = {**dataclasses.asdict(evaluate_map(
        truth, detections, class_names=classes, tiou_thresholds=(0.3, 0.5))),
        "average_precision": [[1.0, 0.5], [None, None]]}
    path = tmp_path / "dashboard.html"
    write_split_dashboard(
        path, title=EVIL, scores=scores, facts=["subset testing"],
        diagnosis=dataclasses.asdict(diagnose(
            truth, detections, class_names=classes, tiou_thresholds=(0.5,),
            durations={"v": SECONDS})),
        diagnosis_folder=tmp_path / "diagnosis",
        videos=[RankedVideo(f"video {'x' * 40 * (index % 2)}", SECONDS, 2, 4,
                            share, 1, 1, read_video_page(page))
                for index, share in enumerate((0.1, 0.5, 0.9, None))])
    return path


def _pixels(png):
    with av.open(io.BytesIO(png)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def test_hundreds_of_detections_over_half_an_hour(look, tmp_path):
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, 1800, 1500)
    path = tmp_path / "long.html"
    write_video_page(path, None, title="long", duration_seconds=1800, fps=25,
                     predictions=[
                         (start, start + 4, f"class {number}", score)
                         for start, score, number in zip(
                             starts, rng.uniform(size=1500),
                             rng.integers(0, 20, 1500), strict=True)])
    view = look(path)
    shown = int(view.locator("#shown").inner_text().split()[0])
    assert 20 <= shown <= 150
    started = view.evaluate("performance.now()")
    view.evaluate("setScore(0)")
    assert view.evaluate("timeline.lanes.flat().length") == 1500
    assert view.evaluate("performance.now()") - started < 2000
    # So many are painted; a click still finds the one below it.
    assert view.locator("#rows .segment").count() == 0
    item = view.evaluate("timeline.lanes[0].at(-1)")
    view.evaluate("""timeline.lanesWidth && $("rows").querySelector(".lane")
        .scrollIntoView({block: "center"})""")
    box = view.locator("#rows .lane").first.bounding_box()
    view.mouse.click(box["x"] + box["width"] * (item["start"] + 2) / 1800,
                     box["y"] + 10)
    assert view.locator("#clock").inner_text() == view.evaluate(
        f"clockText({item['start']})")
    assert view.locator("#rows .segment.chosen").count() == 1
    # Zoomed in, a segment of four seconds can be read and hit.
    for _ in range(9):
        view.keyboard.press("+")
    box = view.locator("#rows .segment").first.bounding_box()
    assert box["width"] > 60


@pytest.mark.parametrize("start, sound_start", [(0, None), (60, None), (2, 0),
                                                (62, 60)])
def test_a_detection_is_at_its_frame_wherever_the_file_starts(
        look, tmp_path, start, sound_start):
    """The browser's own clock counts from the file's time stamps."""
    path = render(tmp_path / "video.webm", video_start=start,
                  sound_start=sound_start)
    info = probe_video(path)
    # In the middle of a frame: clocks are rounded to whole ones.
    rows = [((info.lead_frames + number + 0.5) / info.fps,
             (info.lead_frames + number + 5) / info.fps, "jump", score)
            for number, score in ((70, 0.9), (20, 0.8))]
    page = tmp_path / "page.html"
    write_video_page(page, path, title="video",
                     duration_seconds=info.duration_seconds, fps=info.fps,
                     predictions=rows)
    view = look(page)
    _ready(view)
    for entry, number in ((0, 20), (1, 70)):
        view.locator("#list .entry").nth(entry).click()
        _until(view, "!document.getElementById('video').seeking")
        # A frame is painted some time after the seek has ended.
        for _ in range(300):
            view.wait_for_timeout(100)
            shot = _pixels(view.locator("#video").screenshot())
            if (seen := number_of(shot, shot.shape[1] // 10)) == number:
                break
        assert seen == number
