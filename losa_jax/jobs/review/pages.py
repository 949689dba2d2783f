"""The pages of a review: the list of videos, and the editor of one video."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from losa_jax.data.reviews import Review
from losa_jax.detection.segments import Detection
from losa_jax.jobs.review.store import Store
from losa_jax.report.document import SERVED_POLICY, clock, page_text
from losa_jax.report.page import count_text

# Detections that the list names, the most doubtful first.
_MAX_DOUBTFUL = 20


def state(store: Store, review: Review) -> dict[str, Any]:
    """Returns what a window must know after a change of a video."""
    return {"revision": review.revision, "is_complete": review.is_complete,
            "classes": store.class_names, "actions": [
                {"id": one.action_id, "label": one.label,
                 "start": one.start_seconds, "end": one.end_seconds,
                 "verdict": one.verdict, "score": one.score,
                 "detected": one.detected, "reviewer": one.reviewer,
                 "when": one.when} for one in review.actions]}


def next_video(store: Store, number: int) -> dict[str, Any]:
    """Returns the most doubtful other video that is not complete."""
    others = [one for one in store.by_doubt()
              if one != number and not store.review(one).is_complete]
    return {"video": others[0] if others else None}


def doubtful(store: Store, number: int, passed: str) -> dict[str, Any]:
    """Returns the detection to check of any video that comes, by doubt, after
    `passed` of the video `number`; after the last one, the first."""
    rows = [row[:3] for row in _by_doubt(store)
            if row[1:3] != (number, passed)]
    least = (store.doubt_of(number, passed), number, passed)
    _, video, name = next((row for row in rows if row > least),
                          rows[0] if rows else (0.0, number, None))
    return {"video": video, "id": name}


def video_page(store: Store, number: int, path: Path | None) -> str:
    """Returns the editor of one video; `path` is its file, None where it is
    missing."""
    predicted = store.predicted(number)
    title = predicted.video_id
    labels = [*store.class_names]
    player = ('<p class="notice">The video is missing: start the review again '
              "with --videos=FOLDER, which holds it.</p>" if path is None else
              '<video id="video" controls preload="auto" playsinline '
              f'src="../media/{number}" data-name="{escape(path.name)}" '
              f'aria-label="{escape(title)}"></video>')
    return page_text(
        "review.html", title=title, facts=[
            clock(predicted.duration_seconds), f"{predicted.fps:.4g} fps",
            count_text(len(predicted.detections), "detection")],
        styles=("base.css", "video.css", "review.css"),
        scripts=("theme.js", "player.js", "timeline.js", "timeline_canvas.js",
                 "review_state.js", "review_frames.js", "review_edit.js",
                 "review.js", "review_dialogs.js", "review_keys.js"),
        content={"player": player}, policy=SERVED_POLICY,
        data={"title": title, "duration": predicted.duration_seconds,
              "fps": predicted.fps, "labels": labels, "truth": None,
              "number": number, "has_video": path is not None,
              "thresholds": predicted.shown_from,
              "detections": [
                  [name, one.start_seconds, one.end_seconds, one.label,
                   one.score]
                  for name, one in store.open_detections(number).items()],
              "state": state(store, store.review(number))})


def list_page(store: Store, files: Sequence[Path | None]) -> str:
    """Returns the list of all videos, the most doubtful first; `files` are as
    of the server."""
    order = store.by_doubt()
    to_check = [store.to_check(number) for number in range(len(store))]
    complete = sum(store.review(number).is_complete for number in order)
    left = sum(map(len, to_check))
    labels = sorted({one.label for some in to_check for one in some.values()})
    options = "".join(f"<option>{escape(name)}</option>" for name in labels)
    return page_text(
        "review_list.html", title=store.folder.absolute().name,
        facts=[count_text(len(store), "video"), f"{complete:,} complete",
               f"{count_text(left, 'detection')} to check"],
        styles=("base.css", "folder.css", "video.css", "review.css"),
        scripts=("theme.js", "review_list.js"), policy=SERVED_POLICY,
        content={"cards": "".join(_card(
                     store, number, files[number], len(to_check[number]))
                                  for number in order),
                 "doubtful": _doubtful(store), "options": options,
                 **{name: "" if steps else " disabled" for name, steps in zip(
                     ("undo", "redo"), store.accept_all_steps, strict=True)}},
        data=None)


def _card(store: Store, number: int, path: Path | None, num_to_check: int
          ) -> str:
    predicted, review = store.predicted(number), store.review(number)
    _, doubtful = min(store.to_check(number).items(), default=("", None),
                      key=lambda pair: store.doubt_of(number, pair[0]))
    moment = (predicted.duration_seconds / 2 if doubtful is None else
              (doubtful.start_seconds + doubtful.end_seconds) / 2)
    status = ("complete" if review.is_complete else
              f"{num_to_check:,} to check" if num_to_check else
              "nothing to check" if review.actions else "not begun")
    judged = len(review.actions)
    share = 100 * judged / max(judged + num_to_check, 1)
    image = ('<span class="blank"></span>' if path is None else
             f'<img src="frame/{number}?t={moment:.3f}" alt="" loading="lazy">')
    return (
        '<li class="card column video" '
        f'data-name="{escape(predicted.video_id.lower())}" '
        f'data-complete="{int(review.is_complete)}">'
        f'<a href="video/{number}">{image}'
        f"<h3>{escape(predicted.video_id)}</h3></a>"
        f'<p class="soft">{clock(predicted.duration_seconds)} · {status}'
        f" · {count_text(len(review.accepted), 'action')}</p>"
        '<div class="meter progress hue0" aria-hidden="true">'
        f'<i data-share="{100 if review.is_complete else share:.0f}"></i>'
        "</div></li>")


def _by_doubt(store: Store) -> list[tuple[float, int, str, Detection]]:
    """Returns (doubt, video, id, detection) of all that are to be checked."""
    rows = [(store.doubt_of(number, name), number, name, one)
            for number in range(len(store))
            for name, one in store.to_check(number).items()]
    return sorted(rows, key=lambda row: row[:3])


def _doubtful(store: Store) -> str:
    """Returns table rows of the most doubtful detections of all videos."""
    return "".join(
        f'<tr><th scope="row"><a href="video/{number}#{name}">'
        f"{escape(one.label)}</a></th>"
        f"<td>{escape(store.predicted(number).video_id)}</td>"
        f"<td>{clock(one.start_seconds)}</td><td>{one.score:.3f}</td></tr>"
        for _, number, name, one in _by_doubt(store)[:_MAX_DOUBTFUL])
