"""What a real browser does where a change cannot be saved."""

import pytest

from tests.jobs.review.conftest import brief, press, saved
from tests.report.test_browser import _until

pytestmark = pytest.mark.browser


def test_a_second_window_does_not_overwrite_the_first(
        view, folder, client, open_page):
    open_page.expected.append("409")  # the browser's own line
    other = open_page(f"{client.server.address}video/0")
    press(view, "a")
    _until(view, "review.isSaved")
    press(other, "x")
    other.locator("#problem").wait_for()
    assert "another window" in other.locator("#problem").inner_text()
    assert brief(saved(other, folder).actions) == [
        ("jump", 1.0, 2.0, "accepted")]
    # It shows the newer state, and goes on from there.
    assert other.title() == "(1/3) a"
    press(other, "n", "a")
    assert len(saved(other, folder).accepted) == 2


def test_a_change_that_cannot_be_written_is_taken_back(
        view, folder, open_page):
    open_page.expected.append("422")
    (folder / "reviews").write_text("in the way")
    press(view, "a")
    view.locator("#problem").wait_for()
    assert "cannot be written" in view.locator("#problem").inner_text()
    # It goes back to the action, as it was.
    assert view.locator("#chosen").inner_text() == (
        "jump, 0:01.0 to 0:02.0, score 0.90, to check")
    press(view, "]")
    _until(view, "review.isSaved")
    assert view.locator("#start").input_value() == "1.000"
    assert view.title() == "(0/3) a"
    (folder / "reviews").unlink()
    press(view, "a")
    assert len(saved(view, folder).accepted) == 1
    assert not view.locator("#problem").is_visible()


def test_an_action_that_another_window_removed_is_gone(
        view, folder, client, open_page):
    open_page.expected.append("409")
    press(view, "Escape", "i")
    view.evaluate("player.seek(3)")
    press(view, "o")
    added, = saved(view, folder).actions
    client.change(0, 1, {added.action_id: None})
    press(view, "]")
    view.locator("#problem").wait_for()
    assert view.locator("#chosen").inner_text() == "no action is chosen"
    assert saved(view, folder).actions == ()


def test_the_changes_of_an_old_address_are_kept_until_it_is_left(
        view, client, open_page):
    """As after a restart at the same port."""
    open_page.expected.append("403")
    client.server.token = "another"
    press(view, "a")
    view.locator("#problem").wait_for()
    assert "printed last" in view.locator("#problem").inner_text()
    assert not view.evaluate("review.isSaved")  # the browser asks to stay
    press(view, "f")
    view.wait_for_timeout(100)
    assert "/video/0" in view.url


def test_a_change_waits_while_the_server_is_away(view, folder, open_page):
    open_page.expected.append("ERR_")
    view.route("**/video/0", lambda route: route.abort())
    press(view, "a", "a")
    view.locator("#problem").wait_for()
    assert "not saved yet" in view.locator("#problem").inner_text()
    assert view.locator("#saved").inner_text() == "not saved"
    view.unroute("**/video/0")
    _until(view, "review.isSaved")
    assert len(saved(view, folder).accepted) == 2
    assert not view.locator("#problem").is_visible()
