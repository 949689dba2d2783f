"""--mode=eval: writes mAP and predictions.json of a work directory."""

import contextlib
import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from losa_jax.data.annotations.video_scores import load_video_scores
from losa_jax.data.predictions import write_predictions
from losa_jax.data.video.decode import VideoDecodeError
from losa_jax.data.windows.batch import Inputs
from losa_jax.data.windows.readers import WindowReader
from losa_jax.data.windows.skipped_videos import (
    BEFORE,
    EVALUATION,
    BrokenVideos,
)
from losa_jax.data.windows.stream import VideoEnd
from losa_jax.detection.classifier_scores import FUSIONS, fuse, rescore
from losa_jax.detection.metrics import (
    MapReport,
    evaluate_map,
    format_map_table,
)
from losa_jax.detection.nms import suppress
from losa_jax.detection.segments import Detection, Segments, detections
from losa_jax.distributed import processes, remote_workdir
from losa_jax.distributed.global_batch import put_batch
from losa_jax.errors import InputError
from losa_jax.inference.run_windows import (
    VideoSegments,
    nms_settings,
    run_windows,
)
from losa_jax.inference.spread_windows import SpreadWindows
from losa_jax.jobs.report import write_split_report
from losa_jax.jobs.setup import (
    ANY_CLASS,
    DataSet,
    load_data,
    start_log,
    window_reader,
    write_json,
)
from losa_jax.training import build
from losa_jax.training.checkpoint import BEST
from losa_jax.training.feature_store import open_store
from losa_jax.training.restore import fresh_state, restore_run
from losa_jax.utils.run_files import (
    BROKEN_FILE,
    MAP_FILE,
    PREDICTIONS_FILE,
    THRESHOLDS_FILE,
)

logger = logging.getLogger(__name__)


class Evaluator:
    """Predicts on the testing videos and scores; compiled once."""

    def __init__(self, config: Any, data: DataSet, model: build.Model,
                 mesh: Mesh, reader: WindowReader, skipped: BrokenVideos):
        """
        Args:
          reader: reads the windows.
          skipped: collects videos that fail to decode.
        """
        self._config, self._data, self._skipped = config, data, skipped
        self._model, self._mesh = model, mesh
        settings = config.evaluate
        if settings.video_scores_fusion not in FUSIONS:
            raise InputError(
                "config.evaluate.video_scores_fusion="
                f"{settings.video_scores_fusion!r}: choose one of "
                f"{', '.join(FUSIONS)}")
        self._video_scores = load_video_scores(
            settings.video_scores, data.label_names,
            [video.video_id for video in data.test]
        ) if settings.video_scores else None
        self._nms = nms_settings(settings)
        self._windows = SpreadWindows(data.test, reader, config, mesh,
                                      settings.batch_windows)
        self._predict = build.jit_predict_step(config, model, mesh)

    def run(self, parameters: Any, statistics: Any
            ) -> tuple[MapReport, dict[str, list[Detection]]]:
        """Predicts every window, merges them by video, scores.

        Videos that fail to decode under data.on_broken_video="skip" are left
        out of the ground truth, with a warning and a count.
        """
        videos, windows = self._data.test, self._windows
        failed: set[str] = set()
        merged: dict[str, list[Detection]] = {}
        own = set(windows.own_videos)
        segments = VideoSegments([video.grid for video in videos],
                                 self._config.window)
        bar = tqdm(total=windows.num_batches, desc="evaluating", unit="batch",
                   leave=False)

        def step(inputs: Inputs) -> Any:
            bar.update()
            return self._predict(
                parameters, statistics, self._model.frozen, put_batch(
                    inputs, self._mesh, self._config.evaluate.batch_windows))

        with bar, contextlib.closing(iter(windows)) as batches:
            for item in run_windows(step, batches,
                                    output_rows=windows.output_rows):
                if not isinstance(item, VideoEnd):
                    if item[0].video_number in own:
                        segments.add(*item)
                    continue
                video_id = videos[item.video_number].video_id
                video_segments = segments.take(item.video_number)
                if item.error is not None:
                    # Damaged features are not a video that can be skipped.
                    if (self._config.data.on_broken_video != "skip"
                            or not isinstance(item.error, VideoDecodeError)):
                        raise item.error
                    self._skipped.add(video_id, str(item.error), EVALUATION)
                    failed.add(video_id)
                elif item.video_number in own:
                    merged[video_id] = self._merged(
                        video_id, video_segments)
        predictions, failed = self._gather(merged, failed)
        return self._score(predictions, failed), predictions

    def _merged(self, video_id: str, segments: Segments) -> list[Detection]:
        """Returns a video's detections from the segments of its windows."""
        names = self._data.class_names
        kept, _ = suppress(segments, len(names), self._nms)
        return self._classified(video_id, detections(kept, names))

    def _gather(self, merged: dict[str, list[Detection]], failed: set[str]
                ) -> tuple[dict[str, list[Detection]], set[str]]:
        """Returns detections (in video order) and failures of all processes.
        """
        if processes.count() > 1:
            parts = processes.gather(
                [merged, sorted(failed), self._skipped.entries])
            merged = {video_id: [Detection(*row) for row in rows]
                      for part, *_ in parts for video_id, rows in part.items()}
            failed = {video_id for _, part, _ in parts for video_id in part}
            for *_, entries in parts:
                self._skipped.absorb(entries)
        return {video.video_id: merged[video.video_id]
                for video in self._data.test
                if video.video_id not in failed}, failed

    def _classified(self, video_id: str, rows: list[Detection]
                    ) -> list[Detection]:
        """Applies the scores of an external classifier, if there are any."""
        if self._video_scores is None:
            return rows
        settings = self._config.evaluate
        scores = self._video_scores[video_id]
        if not self._config.data.class_agnostic:
            return rescore(rows, scores, fusion=settings.video_scores_fusion)
        return fuse(rows, scores, top_classes=settings.video_scores_top,
                    fusion=settings.video_scores_fusion)

    def _score(self, predictions: dict[str, list[Detection]],
               failed: set[str]) -> MapReport:
        if failed:
            logger.warning(
                "%d of %d test videos failed to decode and are not in the "
                "mAP: %s", len(failed), len(self._data.test),
                ", ".join(sorted(failed)))
        return evaluate_map(
            testing_truth(self._data, predictions), predictions,
            class_names=scored_classes(self._data, predictions),
            tiou_thresholds=tuple(self._config.evaluate.tiou_thresholds))


def testing_truth(data: DataSet, predictions: dict[str, list[Detection]]
                 ) -> dict[str, list[tuple[float, float, str]]]:
    """Returns the actions of the testing videos that have predictions.

    All have the class ANY_CLASS where the predictions have no other.
    """
    agnostic = scored_classes(data, predictions) == (ANY_CLASS,)
    return {
        video.video_id: [(action.start_seconds, action.end_seconds,
                          ANY_CLASS if agnostic else action.label)
                         for action in video.actions]
        for video in data.test if video.video_id in predictions}


def scored_classes(data: DataSet, predictions: dict[str, list[Detection]]
                   ) -> tuple[str, ...]:
    """Returns the annotations' classes, or ANY_CLASS for proposals."""
    if data.class_names == data.label_names or any(
            row.label != ANY_CLASS for rows in predictions.values()
            for row in rows):
        return data.label_names
    return (ANY_CLASS,)


def source_of_classes(config: Any) -> str:
    """Describes where the classes come from; printed beside every mAP."""
    settings = config.evaluate
    agnostic = config.data.class_agnostic
    if settings.video_scores:
        how = (f"{settings.video_scores_fusion}, top "
               f"{settings.video_scores_top}" if agnostic else
               f"{settings.video_scores_fusion} with the head's own")
        return f"video-level scores {settings.video_scores} ({how})"
    return ("none, proposals of any class (config.evaluate.video_scores "
            "names a classifier)" if agnostic
            else "the head itself, no external classifier")


def print_report(report: MapReport, config: Any) -> None:
    """Prints the table and the settings that it depends on."""
    print(format_map_table(report))
    print(f"classes from: {source_of_classes(config)}")
    if config.data.block_list:
        print(f"videos left out: {config.data.block_list}")


def write_results(workdir: Path, report: MapReport,
                  predictions: dict[str, list[Detection]],
                  facts: dict[str, Any], config: Any) -> None:
    """Writes predictions.json and map.json in the first process."""
    if not processes.is_first():
        return
    classes = source_of_classes(config)
    write_predictions(
        workdir / PREDICTIONS_FILE, predictions,
        external_data={"used": bool(config.evaluate.video_scores),
                       "details": f"classes from: {classes}"})
    content = dataclasses.asdict(report)
    content["average_precision"] = [
        [None if np.isnan(value) else float(value) for value in row]
        for row in report.average_precision]
    for key, value in content.items():
        if isinstance(value, np.ndarray):
            content[key] = value.tolist()
    write_json(workdir / MAP_FILE, {
        **facts, "classes_from": classes, **content})


def evaluate(config: Any, workdir: Path, *, which: str = BEST,
             output: Path | None = None, report_pages: int | None = None
             ) -> MapReport:
    """Scores a checkpoint of a work directory on the testing videos.

    Args:
      which: checkpoint of the run, "best" or "last".
      output: folder of the results; None: the work directory.
      report_pages: also write pages of so many videos (0: all) and of the
        split.

    Raises:
      InputError: no run, or input that it does not fit.
    """
    imported = bool(config.head.checkpoint) and (
        config.adapter.kind == "none") and not config.adapter.standardize_last
    has_run = remote_workdir.checkpoints_folder(workdir).is_dir()
    if not has_run and not imported:
        raise InputError(f"--workdir={workdir} holds no run to evaluate: "
                         "name the folder of a run, or train first "
                         "(--mode=train)")
    start_log(workdir)
    mesh = build.build_mesh(config)
    store = open_store(config)
    data = load_data(config, workdir, subsets=("test",), store=store)
    model = build.build_model(config, len(data.class_names), mesh)
    if has_run:
        state, which = restore_run(config, workdir, which, model, mesh,
                                   data.class_names)
    else:
        state, _ = fresh_state(config, model, mesh, steps_per_epoch=1)
        which = config.head.checkpoint
    reader = window_reader(config, store, {"testing": data.test})
    output = output or workdir
    if processes.is_first():
        output.mkdir(parents=True, exist_ok=True)
    broken = BrokenVideos(
        output / BROKEN_FILE if processes.is_first() else None)
    for video in data.broken:
        broken.add(video.video_id, video.reason, BEFORE)
    report, predictions = Evaluator(
        config, data, model, mesh, reader, broken).run(
            state.ema, state.statistics)
    step = int(state.step)
    write_results(output, report, predictions,
                  {"checkpoint": which, "step": step}, config)
    print_report(report, config)
    print(f"checkpoint: {which}, step {step}; wrote "
          f"{output / PREDICTIONS_FILE} and {output / MAP_FILE}")
    if report_pages is not None and processes.is_first():
        index = write_split_report(
            output, title=workdir.resolve().name, scores=output / MAP_FILE,
            videos=data.test, videos_folder=config.data.videos,
            truth=testing_truth(data, predictions), predictions=predictions,
            class_names=scored_classes(data, predictions),
            thresholds=workdir / THRESHOLDS_FILE, max_pages=report_pages,
            facts=[f"recipe {config.name}",
                   f"subset {config.data.test_subset}",
                   f"checkpoint {which}, step {step:,}"])
        print(f"the report: {index}")
    print(broken.report(), end="\n" if broken.reasons else "")
    return report
