"""What is seen and read out in a real browser."""

import av
import numpy as np
import pytest

from tests.jobs.review.conftest import ROWS, press, saved, write_video
from tests.report.conftest import FPS, SECONDS
from tests.report.test_browser import _pixels, _until

pytestmark = pytest.mark.browser


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
    press(view, "Space")
    _until(view, "player.time > 2.3")
    press(view, "Space", "a")
    assert not view.evaluate("player.playing")
    assert len(saved(view, tmp_path / "out", "old").accepted) == 1


def test_a_video_that_vanishes_is_named(serve, open_page, tmp_path, video):
    open_page.expected.append("404")
    path = tmp_path / "copy.webm"
    path.write_bytes(video.read_bytes())
    write_video(tmp_path / "out", "a", ROWS, path)
    client = serve(tmp_path / "out")
    path.unlink()
    view = open_page(f"{client.server.address}video/0")
    _until(view, "$('failure').textContent.includes('or it was moved')")
    press(view, "a")
    assert len(saved(view, tmp_path / "out").accepted) == 1
    view.goto(client.server.address)
    _until(view, "document.querySelector('#videos img') === null")


def test_the_focus_stays_in_the_list(view):
    view.locator("#list .entry").nth(1).focus()
    press(view, "Enter")
    assert view.evaluate("document.activeElement.dataset.id === "
                         "timeline.chosen.id")
    press(view, "Tab", "a")
    assert view.evaluate("document.activeElement.matches('#list .entry')")


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
    press(view, "a")
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
