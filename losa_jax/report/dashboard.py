"""The page of a whole evaluated split."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from losa_jax.report.charts import bar_chart
from losa_jax.report.document import clock, escape, make_document, write_page
from losa_jax.report.page import VideoPage, link, video_card
from losa_jax.report.tables import map_table, tiles

# Pictures of so many of the best and of the worst videos.
NUM_SHOWN = 5
# Short enough to stand below a bar.
_KINDS = {"true": "true", "double": "found twice", "wrong_label":
          "wrong class", "localization": "misplaced",
          "confusion": "both", "background": "no action"}
# What a bin is by, and the unit that its edges are shown in.
_MEASURES = {"length_seconds": ("length of the action, seconds", 1),
             "coverage": ("share of the video that the action covers, %",
                          100),
             "actions_in_video": ("actions in the video", 1)}


class RankedVideo(NamedTuple):
    """A video of the split.

    Attributes:
      title: its id.
      duration_seconds: of it.
      num_actions, num_detections: in it.
      average_map: of this video alone; None without actions.
      found: actions found at its classes' thresholds.
      false: detections at its classes' thresholds that find none.
      page: what its page says; None where none was written.
    """

    title: str
    duration_seconds: float
    num_actions: int
    num_detections: int
    average_map: float | None
    found: int
    false: int
    page: VideoPage | None


def write_split_dashboard(output: Path, *, title: str,
                          scores: Mapping[str, Any],
                          videos: Sequence[RankedVideo],
                          diagnosis: Mapping[str, Any] | None = None,
                          diagnosis_folder: Path | None = None,
                          facts: Sequence[str] = ()) -> None:
    """Writes tables, charts, best and worst videos, links to all pages.

    Args:
      output: the HTML file.
      title: of the run.
      scores: the content of map.json.
      videos: of the split, in any order.
      diagnosis: the content of diagnosis.json; None leaves its charts out.
      diagnosis_folder: with its files, to be linked.
      facts: short remarks for the line below the title.
    """
    parts = [f'<dl class="tiles">{_tiles(scores, diagnosis)}</dl>',
             '<section class="card panel"><h2>Average precision, %</h2>'
             f"{map_table(scores)}</section>"]
    if diagnosis:
        more = "" if diagnosis_folder is None else (
            '<p class="summary">Also as '
            f'<a href="{escape(_folder_link(diagnosis_folder, output))}">'
            "files</a>: text, JSON, pictures.</p>")
        parts.append(f'<h2 class="part">Diagnosis</h2>{more}'
                     f'<div class="charts">{_diagnosis(diagnosis)}</div>')
    parts += _videos(videos, output.parent)
    write_page(output, make_document(
        "dashboard.html", title=title,
        styles=("base.css", "folder.css", "charts.css"),
        scripts=("theme.js", "folder.js"),
        content={"facts": "".join(f"<li>{escape(fact)}</li>"
                                  for fact in facts),
                 "parts": "".join(parts)}))


def _folder_link(folder: Path, output: Path) -> str:
    return link(folder, output.parent) + "/"


def _tiles(scores: Mapping[str, Any], diagnosis: Mapping[str, Any] | None
           ) -> str:
    found = [("Average mAP", f"{100 * scores['average_map']:.2f} %",
              f"tIoU {scores['tiou_thresholds'][0]:g} to "
              f"{scores['tiou_thresholds'][-1]:g}")]
    found += [(f"mAP at {tiou:g}", f"{100 * share:.2f} %", "")
              for tiou, share in zip(scores["tiou_thresholds"],
                                     scores["map_per_threshold"],
                                     strict=True) if tiou in (0.5, 0.75)]
    if diagnosis:
        found.append(("Missed", f"{100 * diagnosis['missed']:.1f} %",
                      f"of the actions, at {diagnosis['tiou_threshold']:g}"))
    found += [("Videos", f"{scores['num_videos']:,}", ""),
              ("Actions", f"{scores['num_actions']:,}", ""),
              ("Predictions", f"{scores['num_predictions']:,}", "")]
    return tiles(found)


def _diagnosis(found: Mapping[str, Any]) -> str:
    ranks = [f"{rank}G" for rank in range(
        1, 1 + len(next(iter(found["profile"].values()))))]
    charts = [
        bar_chart(
            f"Kinds of predictions at tIoU {found['tiou_threshold']:g}, %",
            ranks, {_KINDS.get(kind, kind): [100 * share for share in shares]
                    for kind, shares in found["profile"].items()},
            summary="share among the best k G (G actions in all)",
            stacked=True),
        bar_chart(
            "What errors cost, points of average mAP",
            [_KINDS.get(kind, kind) for kind in found["gain"]],
            {"gain": [100 * value for value in found["gain"].values()]},
            summary="how much it would rise without each kind; both: wrong "
                    "class and misplaced")]
    for name, bins in found["bins"].items():
        if not bins:
            continue
        what, unit = _MEASURES.get(name, (name, 1))
        rows = [dict(zip(("low", "high", "num_actions", "average_map",
                          "missed"), one, strict=True)) for one in bins]
        charts.append(bar_chart(
            f"By {what}",
            [f"{unit * row['low']:.3g}–{unit * row['high']:.3g}"
             for row in rows],
            {"average mAP, %": [100 * row["average_map"] for row in rows],
             "missed, %": [100 * row["missed"] for row in rows]},
            summary="fifths of the actions"))
    return "".join(charts)


def _videos(videos: Sequence[RankedVideo], folder: Path) -> list[str]:
    scored = sorted((video for video in videos
                     if video.average_map is not None),
                    key=lambda video: -(video.average_map or 0.0))
    paged = [video.page for video in scored if video.page is not None]
    parts = []
    shown = min(NUM_SHOWN, len(paged) // 2)
    if shown:
        for title, some in (("Best videos", paged[:shown]),
                            ("Worst videos", paged[:-shown - 1:-1])):
            cards = "".join(video_card(page, folder) for page in some)
            parts.append(f'<h2 class="part">{title}</h2>'
                         f'<ul class="videos">{cards}</ul>')
    rows = "".join(_row(video, folder) for video in [
        *reversed(scored),
        *(video for video in videos if video.average_map is None)])
    parts.append(
        '<section class="card panel" id="all"><h2>All videos, worst first'
        '</h2><div class="wide"><table class="marks"><thead><tr>'
        '<th scope="col" class="left">video</th><th scope="col">length</th>'
        '<th scope="col">average mAP, %</th><th scope="col">actions</th>'
        '<th scope="col">found</th><th scope="col">false</th>'
        '<th scope="col">detections</th></tr></thead>'
        f'<tbody id="videos">{rows}</tbody></table></div>'
        '<p class="summary">Found and false: at tIoU 0.5, with each class\'s '
        "own score threshold.</p></section>")
    return parts


def _row(video: RankedVideo, folder: Path) -> str:
    name = escape(video.title)
    if video.page is not None:
        name = f'<a href="{escape(link(video.page.path, folder))}">{name}</a>'
    share = ("–" if video.average_map is None
             else f"{100 * video.average_map:.2f}")
    return (f'<tr data-name="{escape(video.title.lower())}">'
            f'<th scope="row">{name}</th>'
            f"<td>{clock(video.duration_seconds)}</td><td>{share}</td>"
            f"<td>{video.num_actions}</td><td>{video.found}</td>"
            f"<td>{video.false}</td><td>{video.num_detections:,}</td></tr>")


def page_path(folder: Path, video_id: str) -> Path:
    """Where a video's page lies; ids may hold what file names may not."""
    # Of odd characters, `link` escapes the percent signs once more.
    name = "".join(c if c.isalnum() or c in "-_. " else f"%{ord(c):04x}"
                   for c in video_id)
    return folder / f"{name}.html"
