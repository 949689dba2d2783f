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
