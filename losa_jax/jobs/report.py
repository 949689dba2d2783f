"""--mode=eval --report: a page for each video, and a dashboard."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from losa_jax.data.records import Video
from losa_jax.data.video.folder import VideoFolder
from losa_jax.detection import metrics, segments
from losa_jax.detection.diagnosis import diagnose
from losa_jax.errors import InputError
from losa_jax.inference.load import read_thresholds
from losa_jax.jobs.score import write_diagnosis
from losa_jax.report import dashboard
from losa_jax.report.dashboard import RankedVideo, page_path
from losa_jax.report.page import read_video_page, write_video_page
from losa_jax.utils.run_files import REPORT_FOLDER

INDEX_FILE = "index.html"
# Of the dashboard's counts of detected actions and false detections.
_HIT_IOU = 0.5
# Keeps each of many pages small; predictions.json has all detections.
_MAX_DETECTIONS, _MAX_THUMBNAILS = 400, 60


def write_split_report(folder: Path, *, title: str, scores: metrics.MapReport,
                       videos: Sequence[Video], videos_folder: str,
                       truth: metrics.Truth, predictions: metrics.Predictions,
                       workdir: Path, max_pages: int = 0,
                       facts: Sequence[str] = ()) -> Path:
    """Writes the pages into `folder`/report; returns the dashboard.

    Args:
      videos: of the split; those without predictions are left out.
      videos_folder: of the video files, for videos known by features only.
      workdir: the run; without its thresholds.json, the scores of best F1 on
        this split are used.
      max_pages: number of videos with a page, half of them the worst, half
        the best; 0: all.
    """
    report, class_names = folder / REPORT_FOLDER, scores.class_names
    least = read_thresholds(workdir) or {
        name: one["score"] for name, one in metrics.best_f1_thresholds(
            truth, predictions, class_names=class_names).items()}
    shown = {video.video_id: video for video in videos
             if video.video_id in predictions}
    ranked = worst_first([
        _rank(video, truth[name], predictions[name], class_names,
              scores.tiou_thresholds, least)
        for name, video in shown.items()])
    files = (VideoFolder(Path(videos_folder))
             if videos_folder and Path(videos_folder).is_dir() else None)
    for index in tqdm(_with_page(ranked, max_pages), desc="writing pages",
                      unit="video", leave=False):
        name, share = ranked[index].title, ranked[index].average_map
        video = shown[name]
        best = sorted(predictions[name], key=lambda row: -row.score)
        page = page_path(report / "videos", name)
        write_video_page(
            page, _playable(video, files), title=name,
            duration_seconds=video.info.duration_seconds, fps=video.info.fps,
            predictions=[row[:4] for row in best[:_MAX_DETECTIONS]],
            ground_truth=truth[name], thresholds=least,
            list_page=report / INDEX_FILE, max_thumbnails=_MAX_THUMBNAILS)
        note = "" if share is None else f"average mAP {100 * share:.1f} %"
        ranked[index] = ranked[index]._replace(
            page=read_video_page(page)._replace(note=note))
    diagnosis = diagnose(
        truth, predictions, class_names=class_names,
        tiou_thresholds=scores.tiou_thresholds,
        durations={name: video.info.duration_seconds
                   for name, video in shown.items()})
    write_diagnosis(report / "diagnosis", diagnosis)
    dashboard.write_split_dashboard(
        report / INDEX_FILE, title=title, scores=scores.as_json(),
        videos=ranked, diagnosis=dataclasses.asdict(diagnosis),
        diagnosis_folder=report / "diagnosis", facts=facts)
    if ranked and ranked[0].average_map is not None:
        print(f"page of the worst video (average mAP "
              f"{100 * ranked[0].average_map:.1f} %): "
              f"{page_path(report / 'videos', ranked[0].title)}")
    return report / INDEX_FILE


def worst_first(videos: Sequence[RankedVideo]) -> list[RankedVideo]:
    """Returns videos by average mAP; those without actions come last."""
    return sorted(videos, key=lambda video: (
        video.average_map is None, video.average_map or 0.0))


def _with_page(ranked: Sequence[RankedVideo], most: int) -> list[int]:
    """Returns the indices of the worst and of the best; 0: of all videos."""
    if not most or most >= len(ranked):
        return [*range(len(ranked))]
    num_scored = sum(video.average_map is not None for video in ranked)
    best = most // 2
    return sorted({*range(min(most - best, num_scored)),
                   *range(max(num_scored - best, 0), num_scored)})


def _playable(video: Video, files: VideoFolder | None) -> Path | None:
    """Returns the video's file; None if there are only features."""
    path = video.path
    if path is not None and path.suffix.lower() not in (".npy", ".npz") and (
            path.is_file()):
        return path
    try:
        return None if files is None else files.find(video.video_id)
    except InputError:
        return None


def _rank(video: Video, truth: Sequence[metrics.Annotation],
          detections: Sequence[segments.Detection], class_names: Sequence[str],
          tiou_thresholds: Sequence[float], least: Mapping[str, float]
          ) -> RankedVideo:
    name = video.video_id
    kept = [row for row in detections if row.score >= least.get(row.label, 0.0)]
    matches = metrics.match_predictions(
        {name: truth}, {name: kept}, class_names=class_names,
        tiou_thresholds=(_HIT_IOU,))
    hits = sum(int(one.hits.sum()) for one in matches)
    score = None if not matches else metrics.evaluate_map(
        {name: truth}, {name: detections}, class_names=class_names,
        tiou_thresholds=tiou_thresholds).average_map
    return RankedVideo(name, video.info.duration_seconds, len(truth),
                       len(detections), score, hits, len(kept) - hits, None)
