"""--mode=eval --report: a page for each video, and one of the split."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from losa_jax.data.records import Video
from losa_jax.data.video.check import find_file, video_files
from losa_jax.detection.diagnosis import Found, Truth, diagnose
from losa_jax.detection.metrics import (
    Annotation,
    evaluate_map,
    match_predictions,
)
from losa_jax.detection.segments import Detection
from losa_jax.detection.thresholds import best_f1_thresholds
from losa_jax.errors import InputError
from losa_jax.jobs.score import write_diagnosis
from losa_jax.report.dashboard import (
    RankedVideo,
    page_path,
    write_split_dashboard,
)
from losa_jax.report.page import read_video_page, write_video_page
from losa_jax.timeline import SAME_ACTION_SECONDS

REPORT_FOLDER, INDEX_FILE = "report", "index.html"
# For the counts of found and false.
_HIT_IOU = 0.5
# A page of one among many videos stays small; predictions.json has all.
_MAX_DETECTIONS, _MAX_THUMBNAILS = 400, 60


def write_split_report(folder: Path, *, title: str, scores: Path,
                       videos: Sequence[Video], videos_folder: str,
                       truth: Mapping[str, Sequence[Annotation]],
                       predictions: Mapping[str, Sequence[Detection]],
                       class_names: Sequence[str], thresholds: Path,
                       max_pages: int = 0, facts: Sequence[str] = ()
                       ) -> Path:
    """Writes the pages into `folder`/report.

    Args:
      folder: of the evaluation's results.
      title: of the run.
      scores: map.json.
      videos: of the split; those without predictions are left out.
      videos_folder: where their files are looked for if features were read.
      truth, predictions, class_names: that were scored.
      thresholds: thresholds.json; where it is missing, the scores of best F1
        on this very split serve.
      max_pages: of so many videos, half of them the worst, half the best;
        0: of all.
      facts: remarks for the dashboard.

    Returns:
      the dashboard.

    Raises:
      InputError: a file that cannot be read.
    """
    report = folder / REPORT_FOLDER
    least = _thresholds(thresholds, truth, predictions, class_names)
    content = json.loads(scores.read_text())
    tiou_thresholds = tuple(content["tiou_thresholds"])
    shown = [video for video in videos if video.video_id in predictions]
    ranked = [_rank(video, truth[video.video_id], predictions[video.video_id],
                    class_names, tiou_thresholds, least) for video in shown]
    paths = _paths(shown, videos_folder)
    for index in tqdm(_with_page(ranked, max_pages), desc="writing pages",
                      unit="video", leave=False):
        name = shown[index].video_id
        page = page_path(report / "videos", name)
        _write_page(page, paths[name], shown[index], truth[name],
                    predictions[name], least)
        share = ranked[index].average_map
        ranked[index] = ranked[index]._replace(page=dataclasses.replace(
            read_video_page(page),
            note="" if share is None else f"average mAP {100 * share:.1f} %"))
    found = diagnose(
        truth, predictions, class_names=class_names,
        tiou_thresholds=tiou_thresholds,
        durations={video.video_id: video.info.duration_seconds
                   for video in shown})
    write_diagnosis(report / "diagnosis", found)
    index_page = report / INDEX_FILE
    write_split_dashboard(
        index_page, title=title, scores=content, videos=ranked,
        diagnosis=dataclasses.asdict(found),
        diagnosis_folder=report / "diagnosis", facts=facts)
    worst = min((one for one in ranked if one.average_map is not None),
                key=lambda one: one.average_map or 0.0, default=None)
    if worst is not None:
        print(f"page of the worst video (average mAP "
              f"{100 * (worst.average_map or 0.0):.1f} %): "
              f"{page_path(report / 'videos', worst.title)}")
    return index_page


def _with_page(ranked: Sequence[RankedVideo], most: int) -> list[int]:
    """Places of the worst and the best; without actions comes last."""
    order = sorted(range(len(ranked)), key=lambda index: (
        ranked[index].average_map is None, ranked[index].average_map or 0.0))
    if not most or most >= len(order):
        return order
    scored = [index for index in order
              if ranked[index].average_map is not None]
    best = most // 2
    chosen = scored[:most - best] + scored[len(scored) - best:]
    return list(dict.fromkeys(chosen))


def _write_page(page: Path, path: Path | None, video: Video,
                truth: Sequence[Annotation], found: Sequence[Detection],
                least: Mapping[str, float]) -> None:
    best = sorted(found, key=lambda row: -row.score)[:_MAX_DETECTIONS]
    write_video_page(
        page, path, title=video.video_id,
        duration_seconds=video.info.duration_seconds, fps=video.info.fps,
        predictions=[{"segment": [row.start_seconds, row.end_seconds],
                      "label": row.label, "score": row.score}
                     for row in best],
        ground_truth=[{"segment": [start, end], "label": label}
                      for start, end, label in truth],
        thresholds=least, max_thumbnails=_MAX_THUMBNAILS)


def _thresholds(path: Path, truth: Truth, predictions: Found,
                class_names: Sequence[str]) -> dict[str, float]:
    try:
        known = json.loads(path.read_text())
    except FileNotFoundError:
        known = best_f1_thresholds(truth, predictions,
                                   class_names=class_names)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); delete it, "
                         "thresholds are then chosen anew") from error
    return {name: one["score"] for name, one in known.items()}


def _paths(videos: Sequence[Video], folder: str
           ) -> dict[str, Path | None]:
    """Files to play; None where only features are there."""
    is_there = bool(folder) and Path(folder).is_dir()
    files = video_files(Path(folder)) if is_there else {}
    paths: dict[str, Path | None] = {}
    for video in videos:
        path: Path | None = video.path
        is_features = path is None or path.suffix in (".npy", ".npz")
        if path is None or is_features or not path.is_file():
            try:
                path = find_file(video.video_id, Path(folder), files)
            except InputError:
                path = None
        paths[video.video_id] = path
    return paths


def _rank(video: Video, truth: Sequence[Annotation],
          found: Sequence[Detection], class_names: Sequence[str],
          tiou_thresholds: Sequence[float], least: Mapping[str, float]
          ) -> RankedVideo:
    name = video.video_id
    present = {label for start, end, label in truth
               if end - start >= SAME_ACTION_SECONDS}
    labels = [label for label in class_names if label in present]
    kept = [row for row in found
            if row.score >= least.get(row.label, 0.0)]
    hits, score = 0, None
    if labels:
        scored = [action for action in truth if action[2] in present]
        score = evaluate_map({name: scored}, {name: found},
                             class_names=labels,
                             tiou_thresholds=tiou_thresholds).average_map
        hits = sum(int(np.sum(one.hits)) for one in match_predictions(
            {name: scored}, {name: kept}, class_names=labels,
            tiou_thresholds=(_HIT_IOU,)))
    return RankedVideo(name, video.info.duration_seconds, len(truth),
                       len(found), score, hits, len(kept) - hits, None)
