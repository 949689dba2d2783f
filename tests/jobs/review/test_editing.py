"""Editing in a real browser: keys, dragging, live marking, classes."""

import pytest

from tests.jobs.review.conftest import EVIL, brief, press, saved
from tests.report.test_browser import _ready, _time, _until

pytestmark = pytest.mark.browser


def test_keys_correct_an_action(view, folder):
    assert view.title() == "(0/3) a"
    # The first to check is chosen, and the player is there.
    assert "jump, 0:01.0 to 0:02.0" in view.locator("#chosen").inner_text()
    assert _time(view) == pytest.approx(1.0, abs=1e-3)
    press(view, "[", "]", "]", "}", "2")
    assert brief(saved(view, folder).actions) == [
        ("wave", 1.1, 2.1, "accepted")]
    # Undo and redo, step by step.
    press(view, "Control+z", "Control+z")
    assert brief(saved(view, folder).actions) == [
        ("jump", 1.1, 2.0, "accepted")]
    press(view, "Control+y", "Control+Shift+Z")
    assert brief(saved(view, folder).actions) == [
        ("wave", 1.1, 2.1, "accepted")]
    for _ in range(5):
        press(view, "Control+z")
    assert saved(view, folder).actions == ()
    assert view.title() == "(0/3) a"


def test_a_key_that_is_held_accepts_once(view, folder):
    for _ in range(4):
        view.keyboard.down("a")
    view.keyboard.up("a")
    assert len(saved(view, folder).accepted) == 1
    view.keyboard.down("ArrowRight")
    view.keyboard.down("ArrowRight")  # moving repeats
    view.keyboard.up("ArrowRight")
    assert _time(view) == pytest.approx(2.2, abs=2e-3)


def test_keys_reject_split_merge_and_add(view, folder):
    press(view, "n", "x")  # the wave at 2 s; on to the jump at 3 s
    assert "jump, 0:03.0" in view.locator("#chosen").inner_text()
    view.evaluate("player.seek(3.4)")
    press(view, "s")
    assert brief(saved(view, folder).actions) == [
        ("wave", 2.0, 2.5, "rejected"), ("jump", 3.0, 3.4, "accepted"),
        ("jump", 3.4, 4.0, "accepted")]
    press(view, "m")
    assert brief(saved(view, folder).accepted) == [
        ("jump", 3.0, 4.0, "accepted")]
    # A new action between I and O, with the class of the last one.
    press(view, "Escape")
    view.evaluate("player.seek(5.0)")
    press(view, "i")
    view.evaluate("player.seek(5.5)")
    press(view, "o", "2")
    assert brief(saved(view, folder).accepted)[-1] == (
        "wave", 5.0, 5.5, "accepted")
    # What a person added is removed, not rejected.
    press(view, "Delete")
    assert len(saved(view, folder).actions) == 2
    # I and O also move the edges of the chosen action.
    view.locator("#list .entry", has_text="0:01.0").click()
    view.evaluate("player.seek(1.3)")
    press(view, "i")
    view.evaluate("player.seek(1.8)")
    press(view, "o")
    assert ("jump", 1.3, 1.8, "accepted") in brief(
        saved(view, folder).actions)


def test_merging_detections_makes_no_hard_negative(view, folder):
    press(view, "m")
    review = saved(view, folder)
    assert brief(review.accepted) == [("jump", 1.0, 4.0, "accepted")]
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
    assert brief(saved(view, folder).actions) == [
        ("jump", 1.0, 2.5, "accepted")]
    # The keys are still those of the page.
    before = _time(view)
    press(view, "ArrowRight")
    assert before < _time(view) <= before + 0.11
    # The whole action, into the row of another class.
    wave = view.locator(".lanes[data-label='1']").bounding_box()
    drag(box["x"] + box["width"] / 2, middle,
         box["x"] + box["width"] / 2 + second, wave["y"] + wave["height"] / 2)
    assert brief(saved(view, folder).actions) == [
        ("wave", 2.0, 3.5, "accepted")]
    # Over an empty part, a new action.
    lane = view.locator(".lanes[data-label='0'] .lane").last.bounding_box()
    drag(lane["x"] + 5.02 * second, middle, lane["x"] + 5.48 * second, middle)
    assert brief(saved(view, folder).actions)[-1] == (
        "jump", 5.0, 5.5, "accepted")
    assert view.locator("#chosen").inner_text().startswith("jump, 0:05.0")
    # A click without a move only seeks.
    view.mouse.click(lane["x"] + 4.5 * second, middle)
    assert _time(view) == pytest.approx(4.5, abs=0.02)
    assert len(saved(view, folder).actions) == 2


def test_dragging_ends_where_it_should(view, folder):
    box = view.get_by_label("jump, 0:01.0 to 0:02.0").last.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    # Straight down, into the row of another class.
    wave = view.locator(".lanes[data-label='1']").bounding_box()
    view.mouse.move(x, y)
    view.mouse.down()
    view.mouse.move(x, wave["y"] + wave["height"] / 2, steps=3)
    view.mouse.up()
    assert brief(saved(view, folder).actions) == [
        ("wave", 1.0, 2.0, "accepted")]
    press(view, "Control+z")
    # The button is released outside the rows.
    edge = box["x"] + box["width"] - 2
    view.mouse.move(edge, y)
    view.mouse.down()
    view.mouse.move(edge, box["y"] - 150, steps=3)
    view.mouse.up()
    view.mouse.move(edge + 60, y, steps=3)
    assert view.evaluate("drag") is None
    # Esc takes a drag back.
    view.mouse.move(x, y)
    view.mouse.down()
    view.mouse.move(x + 80, y, steps=3)
    press(view, "Escape")
    view.mouse.move(x + 90, y)
    view.mouse.up()
    assert saved(view, folder).actions == ()
    assert view.title() == "(0/3) a"


def test_an_emptied_field_changes_nothing(view, folder):
    view.locator("#start").fill("")
    press(view, "Tab")
    assert view.locator("#start").input_value() == "1.000"
    view.locator("#end").fill("")
    press(view, "Enter")
    assert view.locator("#end").input_value() == "2.000"
    assert not (folder / "reviews").exists()


def test_a_complete_video_can_be_opened_again(serve, open_page, folder):
    address = f"{serve(folder).server.address}video/0"
    view = open_page(address)
    _ready(view)
    with view.expect_navigation():
        press(view, "f")
    view.goto(address)
    _ready(view)
    assert view.locator("#progress").inner_text().endswith("complete")
    view.locator("#reopen").click()
    assert not saved(view, folder).is_complete
    assert not view.locator("#reopen").is_visible()
    press(view, "Control+z")
    assert saved(view, folder).is_complete
    press(view, "Shift+F")
    assert not saved(view, folder).is_complete


def test_the_keys_of_other_alphabets_are_those_beside_them(view, folder):
    view.evaluate("""for (const [key, code] of [["ф", "KeyA"], ["é", "Digit2"],
        ["ö", "Semicolon"]]) {
      document.body.dispatchEvent(new KeyboardEvent("keydown",
        {key, code, bubbles: true}));
    }""")
    assert brief(saved(view, folder).actions) == [
        ("jump", 1.0, 2.0, "accepted"), ("wave", 2.0, 2.5, "accepted")]


def test_the_player_has_one_answer_to_a_key(view):
    for _ in range(2):
        view.locator("#video").click()  # plays, and pauses
    press(view, "Home", "Space")
    _until(view, "player.time > 0.3")
    press(view, "Space")
    assert not view.evaluate("player.playing")
    # By keys alone, the player's own come first.
    view.evaluate("player.video.focus()")
    press(view, "Space")
    _until(view, "player.playing")
    press(view, "Space")
    _until(view, "!player.playing")


def test_speed_and_frames_by_mouse(view):
    view.locator("#speed").select_option("0.25")
    assert view.evaluate("player.video.playbackRate") == 0.25
    view.get_by_role("button", name="One frame on").click()
    assert _time(view) == pytest.approx(1.1, abs=2e-3)
    view.get_by_role("button", name="One frame back").click()
    press(view, ".", ".")
    assert view.evaluate("player.video.playbackRate") == 0.75
    assert view.locator("#announcer").inner_text() == "speed 0.75"


def test_the_first_action_of_the_first_class(
        serve, open_page, video, tmp_path):
    (tmp_path / "a.webm").write_bytes(video.read_bytes())
    view = open_page(f"{serve(tmp_path).server.address}video/0")
    _ready(view)
    press(view, "i")
    view.evaluate("player.seek(0.5)")
    press(view, "o")  # asks for the class
    view.keyboard.type("long jump")
    press(view, "Enter")
    store = saved(view, tmp_path)
    assert brief(store.actions) == [("long jump", 0.0, 0.5, "accepted")]
    # An equal name comes before one that holds it; Enter alone keeps a class.
    press(view, "Escape", "c")
    view.keyboard.type("jump")
    press(view, "ArrowDown", "ArrowDown", "Enter")
    _until(view, "$('hint').textContent.includes('of the class jump')")
    press(view, "n")
    view.locator("#list .entry").click()
    # The first key after a dialog is the page's again.
    press(view, "c", "Enter", "c", "Escape", "c")
    assert view.locator("#choose-class").is_visible()
    assert len(saved(view, tmp_path).actions) == 1
    view.keyboard.type("Jump")
    assert view.locator("#class-list button").all_inner_texts() == [
        "jump", "long jump", "new class: Jump"]
    press(view, "Enter")
    _until(view, "!$('choose-class').open")
    assert brief(saved(view, tmp_path).actions) == [
        ("jump", 0.0, 0.5, "accepted")]


def test_live_marking_by_holding_the_key_of_a_class(view, folder):
    view.evaluate("$('reaction').value = 0.4")
    view.evaluate("player.seek(0.5)")
    _until(view, "!player.video.seeking")
    press(view, "r")
    assert view.locator("#live-sign").is_visible()
    view.keyboard.down("2")  # plays, too
    _until(view, "player.time > 1.2")
    view.keyboard.up("2")
    _until(view, "review.isSaved")
    press(view, "Escape")
    action, = saved(view, folder).actions
    assert action.label == "wave" and action.model is None
    assert action.start_seconds == pytest.approx(0.1, abs=0.11)
    assert 0.7 <= action.end_seconds <= 2.2
    assert not view.locator("#live-sign").is_visible()


def test_the_keys_are_those_of_the_page_after_the_pointer(view, folder):
    view.locator("#rows .segment").first.click()
    view.locator("#verdicts").select_option("open")
    view.get_by_role("button", name="Repeat").click()
    view.locator("#rows .segment").first.click()
    time_before = _time(view)
    press(view, "ArrowRight")
    assert _time(view) == pytest.approx(time_before + 0.1, abs=2e-3)
    view.locator("#start").fill("1.2")
    press(view, "Enter", "a")
    assert brief(saved(view, folder).actions) == [
        ("jump", 1.2, 2.0, "accepted")]


def test_a_new_class_is_typed(view, folder):
    press(view, "c")
    view.keyboard.type(EVIL)
    press(view, "Enter")
    assert saved(view, folder).actions[0].label == EVIL
    press(view, "n", "3")  # it has a key now
    assert [one.label for one in saved(view, folder).actions] == [EVIL, EVIL]
    view.reload()
    _ready(view)
    assert view.locator("#rows .name .text").all_inner_texts() == [
        "jump", "wave", EVIL]
