"""A short video, and a browser that opens pages."""

import os
import shutil

import av
import numpy as np
import pytest

# Chromium without a screen, a sandbox (CI runs as root) or access to the
# network.
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update",
         "--disable-sync")
SECONDS, FPS = 6, 10


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    """Six seconds of VP9, which every Chromium plays; each second of its own
    gray. Its name needs escapes in HTML and in an address."""
    path = tmp_path_factory.mktemp("videos") / "a 100% <b>&'\"#1?.webm"
    with av.open(str(path), "w", format="webm") as container:
        stream = container.add_stream("libvpx-vp9", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.gop_size = 20
        for index in range(SECONDS * FPS):
            gray = 40 * (index // FPS)
            pixels = np.full((48, 64, 3), gray, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; skips where it or playwright is missing.

    Not for the session: while Playwright runs, its event loop does too, and
    checkpoints, which make one of their own, could not be written.
    """
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="needs the extra `browser`")
    chromium = os.environ.get("LOSA_CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("no chromium on the path (Debian: apt-get install "
                    "chromium; LOSA_CHROMIUM=PATH names one)")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium,
                                             args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture
def look(browser):
    """look(path, width, scheme) opens a page from disk; console messages and
    network requests fail the test."""
    pages, messages = [], []

    def open_page(path, width=1400, scheme="light", fragment=""):
        page = browser.new_page(viewport={"width": width, "height": 900},
                                color_scheme=scheme)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: messages.append(request.url)
                if not request.url.startswith(("file:", "data:")) else None)
        page.goto(path.as_uri() + fragment)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert messages == []
