"""The dashboard page of an evaluated split."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from losa_jax.report.charts import bar_chart
from losa_jax.report.document import clock, table
from losa_jax.report.page import VideoPage, link, video_card, write_list_page

# Number of best and of worst videos that are shown with a card.
NUM_SHOWN = 5
# Shades of a table cell, from 0 to 100 %.
_SHADES = 5
# {prediction category, as `detection.diagnosis` names it: what it means}.
MEANINGS = {"true": "matches an action",
            "double": "its action is matched already",
            "wrong_label": "on an action of another class",
            "localization": "right class, wrong boundaries",
            "confusion": "wrong class, wrong boundaries",
            "background": "no action is near"}
BELOW_ZERO = ("below 0: some predictions of the category match an action at "
              "another tIoU")
# {measure of the bins: (title, factor from the measure to the title's unit)}.
_MEASURES = {"length_seconds": ("length of the action, seconds", 1),
             "coverage": ("share of the video that the action covers, %",
                          100),
             "actions_in_video": ("actions in the video", 1)}


class RankedVideo(NamedTuple):
    """A video; num_matched and num_false are at the thresholds of the classes.
    """

    title: str  # its id
    duration_seconds: float
    num_actions: int
    num_detections: int  # at any score
    average_map: float | None  # of this video, 0..1; None without actions
    num_matched: int  # actions that a detection matches
    num_false: int  # detections that match no action
    page: VideoPage | None  # None where no page was written


def write_split_dashboard(output: Path, *, title: str,
                          scores: Mapping[str, Any],
                          videos: Sequence[RankedVideo],
                          diagnosis: Mapping[str, Any],
                          diagnosis_folder: Path,
                          facts: Sequence[str] = ()) -> None:
    """Writes tables, charts, best and worst videos, and links to all pages.

    Scores and diagnosis are the content of map.json and diagnosis.json.
    Videos come worst first; facts are short texts below the title.
    """
    folder = output.parent
    files = escape(link(diagnosis_folder, folder))
    write_list_page(output, title=title, facts=facts, styles=("charts.css",),
                    parts=[
        f'<dl class="tiles cards">{_tiles(scores, diagnosis)}</dl>',
        '<section class="card panel"><h2>Average precision, %</h2>'
        f"{map_table(scores)}</section>",
        '<h2 class="part">Diagnosis</h2><p class="soft">Also as '
        f'<a href="{files}/">files</a>: text, JSON.</p>'
        f'<div class="charts cards">{_charts(diagnosis)}</div>',
        *_videos(videos, folder)])


def write_diagnosis_page(output: Path, diagnosis: Mapping[str, Any]) -> None:
    """Writes the charts of a diagnosis, the content of diagnosis.json."""
    write_list_page(output, title="Diagnosis", facts=(), styles=("charts.css",),
                    parts=[f'<div class="charts cards">{_charts(diagnosis)}'
                           "</div>"])


def _tiles(scores: Mapping[str, Any], diagnosis: Mapping[str, Any]) -> str:
    thresholds = scores["tiou_thresholds"]
    rows = [("Average mAP", f"{100 * scores['average_map']:.2f} %",
             f"tIoU {thresholds[0]:g} to {thresholds[-1]:g}")]
    rows += [(f"mAP at {tiou:g}", f"{100 * share:.2f} %", "")
             for tiou, share in zip(thresholds, scores["map_per_threshold"],
                                    strict=True) if tiou in (0.5, 0.75)]
    rows += [("Missed", f"{100 * diagnosis['missed']:.1f} %",
              f"at tIoU {diagnosis['tiou_threshold']:g}"),
             ("Videos", f"{scores['num_videos']:,}", ""),
             ("Actions", f"{scores['num_actions']:,}", ""),
             ("Predictions", f"{scores['num_predictions']:,}", "")]
    return "".join(
        f'<div class="card tile"><dt class="soft">{name}</dt><dd>{figure}'
        f'<small class="soft">{remark}</small></dd></div>'
        for name, figure, remark in rows)


def map_table(scores: Mapping[str, Any]) -> str:
    """Returns average precision by class and tIoU, percent, from map.json."""
    def row(name: str, shares: Sequence[float | None], num_actions: int,
            num_predictions: int, attributes: str = ""
            ) -> tuple[str, list[str], str]:
        return escape(name), [
            *map(_percent, shares), f"<td>{num_actions:,}</td>",
            f"<td>{num_predictions:,}</td>"], attributes

    rows = []
    for name, shares, *counts in zip(
            scores["class_names"], scores["average_precision"],
            scores["actions_per_class"], scores["predictions_per_class"],
            strict=True):
        known = [value for value in shares if value is not None]
        mean = sum(known) / len(known) if known else None
        rows.append(row(name, [*shares, mean], *counts))
    rows.append(row(
        "mean", [*scores["map_per_threshold"], scores["average_map"]],
        scores["num_actions"], scores["num_predictions"], ' class="total"'))
    head = [f"{tiou:g}" for tiou in scores["tiou_thresholds"]]
    return table(["tIoU", *head, "mean", "actions", "predictions"], rows,
                 ' class="marks"')


def _percent(share: float | None) -> str:
    if share is None:
        return "<td>–</td>"
    shade = min(int(share * _SHADES), _SHADES - 1)
    return f'<td class="shade{shade}">{100 * share:.2f}</td>'


def _name(category: str) -> str:
    return category.replace("_", " ")


def _charts(diagnosis: Mapping[str, Any]) -> str:
    profile, gain = diagnosis["profile"], diagnosis["gain"]
    num_ranks = len(next(iter(profile.values())))
    charts = [
        bar_chart(
            "Prediction categories at tIoU "
            f"{diagnosis['tiou_threshold']:g}, %",
            [f"{rank}G" for rank in range(1, num_ranks + 1)],
            {_name(name): [100 * share for share in shares]
             for name, shares in profile.items()},
            summary="share among the best k G (G actions in all); "
                    + "; ".join(f"{_name(name)}: {meaning}"
                                for name, meaning in MEANINGS.items()),
            stacked=True),
        bar_chart(
            "Cost of errors, points of average mAP",
            [_name(name) for name in gain],
            {"gain": [100 * value for value in gain.values()]},
            summary=f"rise of average mAP without a category; {BELOW_ZERO}")]
    for measure, bins in diagnosis["bins"].items():
        if not bins:
            continue
        title, unit = _MEASURES[measure]
        charts.append(bar_chart(
            f"By {title}",
            [f"{unit * low:.3g}" + (
                "" if low == high else f"–{unit * high:.3g}")
             for low, high, *_ in bins],
            {"average mAP, %": [100 * one[3] for one in bins],
             "missed, %": [100 * one[4] for one in bins]},
            summary="fifths of the actions"))
    return "".join(charts)


def _videos(worst_first: Sequence[RankedVideo], folder: Path) -> list[str]:
    paged = [video.page for video in worst_first
             if video.average_map is not None and video.page is not None]
    parts = []
    shown = min(NUM_SHOWN, len(paged) // 2)
    if shown:
        for title, pages in (("Best videos", paged[:-shown - 1:-1]),
                             ("Worst videos", paged[:shown])):
            cards = "".join(video_card(page, folder) for page in pages)
            parts.append(f'<h2 class="part">{title}</h2>'
                         f'<ul class="videos cards">{cards}</ul>')
    rows = table(["video", "length", "average mAP, %", "actions", "detected",
                  "false", "detections"],
                 [_video_row(video, folder) for video in worst_first],
                 ' class="marks"')
    parts.append(
        '<section class="card panel" id="videos"><h2>All videos, worst first'
        f"</h2>{rows}"
        '<p class="soft">Detected and false: at tIoU 0.5, with each class\'s '
        "own score threshold.</p></section>")
    return parts


def _video_row(video: RankedVideo, folder: Path
               ) -> tuple[str, list[str], str]:
    name = escape(video.title)
    if video.page is not None:
        name = f'<a href="{escape(link(video.page.path, folder))}">{name}</a>'
    share = ("–" if video.average_map is None
             else f"{100 * video.average_map:.2f}")
    return name, [f"<td>{cell}</td>" for cell in (
        clock(video.duration_seconds), share, video.num_actions,
        video.num_matched, video.num_false, f"{video.num_detections:,}")
        ], f' data-name="{escape(video.title.lower())}"'


def page_path(folder: Path, video_id: str) -> Path:
    """Returns the path of a video's page, whatever characters its id has."""
    # `link` escapes the percent signs once more.
    name = "".join(c if c.isalnum() or c in "-_. " else f"%{ord(c):04x}"
                   for c in video_id)
    return folder / f"{name}.html"
