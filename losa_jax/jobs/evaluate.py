"""--mode=eval: writes mAP and predictions.json of a work directory."""

import contextlib
import dataclasses
import logging
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from tqdm import tqdm

from losa_jax.data.annotations.video_scores import load_video_scores
from losa_jax.data.predictions import write_predictions
from losa_jax.data.windows.batch import Inputs
from losa_jax.data.windows.readers import WindowReader
from losa_jax.data.windows.skipped_videos import EVALUATION, BrokenVideos
from losa_jax.data.windows.stream import VideoEnd
from losa_jax.detection import classifier_scores, metrics, nms, per_frame
from losa_jax.detection.recall import recall_lines, recalls
from losa_jax.detection.segments import Detection, Segments, detections
from losa_jax.distributed import processes, remote_workdir
from losa_jax.distributed.sharding import put_batch
from losa_jax.distributed.stop_signal import StopSignal
from losa_jax.errors import InputError
from losa_jax.inference import run_windows
from losa_jax.jobs import cache, setup
from losa_jax.jobs.fit_config import fit_config
from losa_jax.jobs.report import write_split_report
from losa_jax.training import build, paired_runs, restore
from losa_jax.training.checkpoint import BEST
from losa_jax.utils import run_files
from losa_jax.utils.atomic_write import make_folder

logger = logging.getLogger(__name__)


class Evaluator:
    """Predicts and scores the testing videos; compiles once."""

    def __init__(self, config: Any, data: setup.DataSet, model: build.Model,
                 mesh: Mesh, reader: WindowReader, skipped: BrokenVideos,
                 paired: paired_runs.PairedRun | None = None):
        """
        Args:
          reader: reads the windows.
          skipped: collects videos that fail to decode.
          paired: a run whose classes are paired with those of the model.
        """
        self._config, self._data, self._skipped = config, data, skipped
        self._model, self._mesh = model, mesh
        settings = config.evaluate
        if settings.video_scores_fusion not in classifier_scores.FUSIONS:
            raise InputError(
                "config.evaluate.video_scores_fusion="
                f"{settings.video_scores_fusion!r}: choose one of "
                f"{', '.join(classifier_scores.FUSIONS)}")
        self._video_scores = load_video_scores(
            settings.video_scores, data.label_names,
            [video.video_id for video in data.test]
        ) if settings.video_scores else None
        self._nms = run_windows.nms_settings(settings)
        self._batch_windows = build.evaluation_windows(config, mesh.shape)
        self._windows = run_windows.SpreadWindows(
            data.test, reader, config, mesh, self._batch_windows)
        self._class_names = (data.class_names if paired is None
                             else paired.class_names)
        self._predict = (build.jit_predict_step(config, model, mesh)
                         if paired is None else
                         paired.predict_step(config, model, mesh))

    def run(self, parameters: Any, statistics: Any, stop: StopSignal
            ) -> tuple[metrics.MapReport, dict[str, list[Detection]]]:
        """Predicts every window, merges them by video, scores.

        A signal of `stop` ends it after a batch, by Interrupted.

        Videos that fail to decode under data.on_broken_video="skip" are left
        out of the ground truth, with a warning and a count.
        """
        videos = self._data.test
        own, failed = self._predict_own(parameters, statistics, stop)
        parts = processes.gather([own, failed])
        setup.share_skipped(self._skipped)
        rows = {name: some for part, _ in parts for name, some in part.items()}
        names = {name for _, part in parts for name in part}
        if names:
            logger.warning(
                "%d of %d test videos could not be read and are not in the "
                "mAP: %s", len(names), len(videos), ", ".join(sorted(names)))
        predictions = {
            video.video_id: [Detection(*row) for row in rows[video.video_id]]
            for video in videos if video.video_id not in names}
        truth, class_names = ground_truth(self._data, predictions)
        settings = self._config.evaluate
        report = metrics.evaluate_map(
            truth, predictions, class_names=class_names,
            tiou_thresholds=tuple(settings.tiou_thresholds))
        if settings.per_frame:
            report = dataclasses.replace(report, per_frame=frame_report(
                self._data, truth, predictions, class_names,
                settings.per_frame))
        if settings.ego4d_recall:
            report = dataclasses.replace(report, recall=recalls(
                truth, predictions, class_names=class_names,
                tiou_thresholds=report.tiou_thresholds, ego4d=True))
        return report, predictions

    def _predict_own(self, parameters: Any, statistics: Any, stop: StopSignal
                     ) -> tuple[dict[str, list[Detection]], list[str]]:
        """Returns this process's detections, and the videos that failed."""
        videos, windows = self._data.test, self._windows
        results: dict[str, list[Detection]] = {}
        failed: list[str] = []
        own = set(windows.own_videos)
        segments = run_windows.VideoSegments([video.grid for video in videos],
                                             self._config.window)
        bar = tqdm(total=windows.num_batches, desc="evaluating", unit="batch",
                   leave=False)

        def step(inputs: Inputs) -> Any:
            stop.raise_if_asked("before this evaluation had ended")
            bar.update()
            return self._predict(
                parameters, statistics, self._model.frozen,
                put_batch(inputs, self._mesh, self._batch_windows,
                          windows.share))

        with bar, contextlib.closing(iter(windows)) as batches:
            for item in run_windows.run_windows(
                    step, batches, output_rows=windows.output_rows):
                if not isinstance(item, VideoEnd):
                    if item[0].video_number in own:
                        segments.add(*item)
                    continue
                name = videos[item.video_number].video_id
                video_segments = segments.take(item.video_number)
                if item.error is not None:
                    if self._config.data.on_broken_video != "skip":
                        raise item.error
                    self._skipped.add(name, str(item.error), EVALUATION)
                    failed.append(name)
                elif item.video_number in own:
                    results[name] = self._detections(name, video_segments)
        return results, failed

    def _detections(self, video_id: str, segments: Segments
                    ) -> list[Detection]:
        """Returns a video's detections after NMS and the fusion with the
        scores of an external classifier."""
        names, settings = self._class_names, self._config.evaluate
        kept, _ = nms.suppress(segments, len(names), self._nms)
        rows = detections(kept, names)
        if self._video_scores is None:
            return rows
        scores = self._video_scores[video_id]
        fusion = settings.video_scores_fusion
        if not self._config.data.class_agnostic:
            return classifier_scores.rescore(rows, scores, fusion=fusion)
        return classifier_scores.fuse(
            rows, scores, top_classes=settings.video_scores_top, fusion=fusion)


def ground_truth(data: setup.DataSet, predictions: metrics.Predictions
                 ) -> tuple[metrics.Truth, tuple[str, ...]]:
    """Returns the actions that predictions are scored against, and classes.

    Where a class-agnostic head's proposals got no classes, there is only one
    class.
    """
    agnostic = data.class_names != data.label_names and all(
        row.label == setup.ANY_CLASS for rows in predictions.values()
        for row in rows)
    truth = {
        video.video_id: [(action.start_seconds, action.end_seconds,
                          setup.ANY_CLASS if agnostic else action.label)
                         for action in video.actions]
        for video in data.test if video.video_id in predictions}
    return truth, (setup.ANY_CLASS,) if agnostic else data.label_names


def frame_report(data: setup.DataSet, truth: metrics.Truth,
                 predictions: metrics.Predictions, class_names: tuple[str, ...],
                 protocol: str) -> per_frame.FrameReport:
    """Scores the moments of the samples of each video, or the 25 of
    Charades."""
    videos = [video for video in data.test if video.video_id in truth]
    return per_frame.evaluate_frames(
        truth, predictions, class_names=class_names, durations={
            video.video_id: video.info.duration_seconds for video in videos},
        protocol=protocol, num_moments=None if protocol == "charades" else {
            video.video_id: video.grid.num_samples for video in videos})


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


def report_results(folder: Path, config: Any, report: metrics.MapReport,
                   predictions: dict[str, list[Detection]],
                   skipped: BrokenVideos, *, checkpoint: str, step: int
                   ) -> None:
    """Writes predictions.json and map.json in the first process; prints the
    mAP and the skipped videos."""
    classes = source_of_classes(config)
    if processes.is_first():
        write_predictions(
            folder / run_files.PREDICTIONS_FILE, predictions,
            external_data={"used": bool(config.evaluate.video_scores),
                           "details": f"classes from: {classes}"})
    setup.write_json(folder / run_files.MAP_FILE, {
        "checkpoint": checkpoint, "step": step, "classes_from": classes,
        **report.as_json()})
    print(metrics.format_map_table(report))
    if report.recall is not None:
        print("\n".join(recall_lines(report.recall, report.tiou_thresholds)))
    print(f"classes from: {classes}")
    if config.data.block_list:
        print(f"videos left out: {config.data.block_list}")
    print(f"checkpoint: {checkpoint}, step {step}; wrote "
          f"{folder / run_files.PREDICTIONS_FILE} and "
          f"{folder / run_files.MAP_FILE}")
    print(skipped.report(), end="\n" if skipped.reasons else "")


def evaluate(config: Any, workdir: Path, *, which: str = BEST,
             output: Path | None = None, report_pages: int | None = None,
             pair_with: Path | None = None) -> metrics.MapReport:
    """Scores a checkpoint of a work directory on the testing videos.

    Args:
      which: checkpoint of the run, "best" or "last".
      output: folder of the results; None: the work directory.
      report_pages: also write pages of so many videos (0: all) and of the
        split.
      pair_with: work directory of a run of nouns, whose classes are paired
        with the verbs of this one to the actions of EPIC-KITCHENS-100.

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
    setup.check_config(config)
    notes = setup.notes_folder(workdir, output)
    setup.start_log(notes)
    fit_config(config, workdir)
    mesh = build.build_mesh(config)
    store, fill = cache.open_store(config, notes)
    data = setup.load_data(config, notes, subsets=("test",), store=store,
                           fill=fill)
    class_names, paired = data.class_names, None
    if pair_with is not None:
        class_names, paired = paired_runs.open_pair(
            config, workdir, pair_with, which, mesh)
    model = build.build_model(config, len(class_names), mesh)
    if has_run:
        state, which = restore.restore_run(config, workdir, which, model, mesh,
                                           class_names)
    else:
        state, _ = restore.fresh_state(config, model, mesh, steps_per_epoch=1)
        which = config.head.checkpoint
    reader = setup.window_reader(config, store, {"testing": data.test})
    output = output or workdir
    if processes.is_first():
        make_folder(output)
    skipped = setup.skipped_videos(output, data)
    evaluator = Evaluator(config, data, model, mesh, reader, skipped, paired)
    with StopSignal(in_step=True) as stop:
        report, predictions = evaluator.run(state.ema, state.statistics, stop)
    step = int(state.step)
    report_results(output, config, report, predictions, skipped,
                   checkpoint=which, step=step)
    if paired is not None and processes.is_first():
        path = output / paired_runs.SUBMISSION_FILE
        paired_runs.write_submission(path, predictions,
                                     config.data.annotations)
        print(f"the submission of verbs, nouns and actions: {path}")
    if report_pages is not None and processes.is_first():
        truth, _ = ground_truth(data, predictions)
        index = write_split_report(
            output, title=workdir.resolve().name,
            scores=report, videos=data.test,
            videos_folder=config.data.videos, truth=truth,
            predictions=predictions,
            workdir=workdir, max_pages=report_pages,
            facts=[f"recipe {config.name}",
                   f"subset {config.data.test_subset}",
                   f"checkpoint {which}, step {step:,}"])
        print(f"the report: {index}")
    return report
