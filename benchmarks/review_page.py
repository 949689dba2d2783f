"""Time of a frame of the review page: 2,000 actions against 20.

    python -m benchmarks.review_page [--actions=2000] [--rounds=3]

Needs the extra `browser` and Chromium. Scrolls and drags in a page of each
length in turn; a step is a pointer's move, or a scroll, with all that the page
draws for it. At 30 frames a second a step may take 33 ms.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import tempfile
import threading
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.common.figures import table
from losa_jax.jobs.review.folder import find_file
from losa_jax.jobs.review.server import ReviewServer
from losa_jax.jobs.review.store import Store

FEW = 20
SECONDS, FPS = 3600, 25
STEPS = """async ([zoom, steps]) => {
  timeline.setZoom(zoom, 1800);
  const frame = () => new Promise(requestAnimationFrame);
  const measured = {scroll: [], drag: []};
  const run = async (times, act) => {
    for (let step = 0; step < steps; step += 1) {
      await frame();
      const start = performance.now();
      act(step);
      document.body.offsetHeight;  // lays the page out
      await new Promise((done) => {
        const {port1, port2} = new MessageChannel();
        port1.onmessage = done;
        requestAnimationFrame(() => port2.postMessage(0));
      });
      times.push(performance.now() - start);
    }
  };
  const middle = $("scroller").scrollLeft;
  await run(measured.scroll, (step) => {
    $("scroller").scrollLeft = middle + 60 * step;
    $("scroller").scrollTop = 3 * step;
  });
  $("scroller").scrollLeft = middle;
  await frame(); await frame();
  const [left, right] = timeline.view;
  const element = timeline.elementOf(timeline.lanes.flat().find((one) =>
    one.start > 0.6 * left + 0.4 * right && one.start < right));
  const box = element.getBoundingClientRect();
  const send = (type, x) => element.dispatchEvent(new PointerEvent(type, {
    bubbles: true, button: 0, buttons: 1, pointerId: 1, clientX: x,
    clientY: box.top + 5}));
  $("rows").setPointerCapture = () => {};
  send("pointerdown", box.left + box.width / 2);
  await run(measured.drag, (step) =>
    send("pointermove", box.left + box.width / 2 + 2 * step));
  send("pointercancel", 0);
  return measured;
}"""


def write_folder(folder: Path, count: int) -> None:
    """Writes what `predict` writes for a video of an hour."""
    rng = random.Random(0)
    rows = [{"label": f"class {number % 8}", "score": 0.9,
             "start_seconds": start, "end_seconds": start + 3,
             "start_frame": round(start * FPS),
             "end_frame": round((start + 3) * FPS)}
            for number, start in enumerate([
                # One that is in view at any zoom.
                SECONDS / 2 + 3,
                *(rng.uniform(0, SECONDS - 10) for _ in range(count - 1))])]
    folder.mkdir()
    (folder / "predictions.json").write_text(json.dumps({"results": {"long": [
        {"segment": [row["start_seconds"], row["end_seconds"]],
         "label": row["label"], "score": row["score"]} for row in rows]}}))
    (folder / "long.json").write_text(json.dumps({
        "video": "long", "source": "-", "duration_seconds": SECONDS,
        "fps": FPS, "frame_count": SECONDS * FPS, "shown_from": {},
        "detections": rows, "below_threshold": [],
        "made_by": {"model": "a model", "top_k": None, "file_bytes": 1,
                    "file_modified_ns": 1}}))


def _serve(folder: Path) -> ReviewServer:
    store = Store(folder, "benchmark")
    server = ReviewServer(store, [find_file(store.predicted(0), folder, None)])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actions", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    counts = FEW, arguments.actions
    chromium = os.environ.get("LOSA_CHROMIUM") or shutil.which("chromium")
    times: dict[tuple[int, str, int], list[float]] = {}
    with (tempfile.TemporaryDirectory() as scratch,
          sync_playwright() as playwright):
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        pages: dict[int, Page] = {}
        for count in counts:
            folder = Path(scratch) / str(count)
            write_folder(folder, count)
            pages[count] = browser.new_page(
                viewport={"width": 1280, "height": 900})
            pages[count].goto(f"{_serve(folder).address}video/0")
        for _ in range(arguments.rounds):
            for zoom in (1, 60):
                for count, page in pages.items():
                    page.bring_to_front()
                    for act, measured in page.evaluate(
                            STEPS, [zoom, arguments.steps]).items():
                        times.setdefault((zoom, act, count), []).extend(
                            measured)
        browser.close()
    rows = []
    for zoom in (1, 60):
        for act in ("scroll", "drag"):
            few, many = (statistics.median(times[zoom, act, count])
                         for count in counts)
            rows.append([f"{act} at zoom {zoom}", f"{few:.1f}", f"{many:.1f}",
                         f"{many / few:.2f}"])
    print(f"median milliseconds a frame, {counts[0]} and {counts[1]} actions\n")
    print(table(["what", *map(str, counts), "ratio"], rows))


if __name__ == "__main__":
    main()
