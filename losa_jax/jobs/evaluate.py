"""--mode=eval: a finished work directory to mAP and predictions.json."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from losa_jax.data.annotations.video_scores import load_video_scores
from losa_jax.data.predictions import write_predictions
from losa_jax.data.windows.examples import (
    TestWindows,
    WindowReader,
    test_dataset,
)
from losa_jax.data.windows.skipped_videos import (
    BEFORE,
    EVALUATION,
    BrokenVideos,
)
from losa_jax.detection.fusion import fuse, rescore
from losa_jax.detection.merge import (
    VideoFinds,
    finds_in_seconds,
    merge_windows,
)
from losa_jax.detection.metrics import (
    MapReport,
    evaluate_map,
    format_map_table,
)
from losa_jax.detection.segments import Detection
from losa_jax.distributed import processes, remote_workdir
from losa_jax.distributed.global_batch import local_rows, put_batch
from losa_jax.errors import InputError
from losa_jax.jobs.report import write_split_report
from losa_jax.jobs.setup import (
    ANY_CLASS,
    DataSet,
    load_data,
    readers,
    start_log,
    window_reader,
    write_json,
)
from losa_jax.training import build
from losa_jax.training.cached import open_store
from losa_jax.training.checkpoint import BEST, LAST
from losa_jax.training.restore import fresh_state, restore_run
from losa_jax.utils.run_files import (
    BROKEN_FILE,
    MAP_FILE,
    PREDICTIONS_FILE,
    THRESHOLDS_FILE,
)

logger = logging.getLogger(__name__)


class Evaluator:
    """Test windows to mAP; compiled once, used after many epochs."""

    def __init__(self, config: Any, data: DataSet, model: build.Model,
                 mesh: Mesh, cache: WindowReader, broken: BrokenVideos):
        """
        Args:
          broken: is told of videos that fail to decode.
        """
        self._config, self._data, self._broken = config, data, broken
        self._model, self._mesh, self._cache = model, mesh, cache
        settings = config.evaluate
        self._video_scores = load_video_scores(
            settings.video_scores, data.label_names,
            [video.video_id for video in data.test]
        ) if settings.video_scores else None
        self._candidates = build.jit_candidates_step(config, model, mesh)

    def run(self, parameters: Any, statistics: Any
            ) -> tuple[MapReport, dict[str, list[Detection]]]:
        """Predicts every window, merges them by video, scores.

        Videos that fail to decode under data.on_broken_video="skip" are left
        out of the ground truth, with a warning and a count.
        """
        failed: set[str] = set()
        windows = TestWindows(self._data.test, self._config,
                              cache=self._cache)
        batch_windows = self._config.evaluate.batch_windows
        dataset, numbers_of = test_dataset(
            windows, batch_windows=batch_windows,
            rows=local_rows(self._mesh, batch_windows),
            **readers(self._config, self._cache))
        samples_per_token = (self._config.window.frames
                             / self._config.window.tokens)
        # Every process predicts all windows and merges its share of videos.
        found = {number: VideoFinds() for number in range(
            processes.index(), len(self._data.test), processes.count())}
        for batch, numbers in zip(
                tqdm(dataset, total=len(numbers_of), desc="evaluating",
                     unit="batch", leave=False), numbers_of, strict=True):
            self._broken.collect(batch, EVALUATION)
            batch.pop("decoded_frames", None)
            failed |= {
                self._data.test[windows.items[number][0]].video_id
                for number, valid in zip(
                    batch.pop("window_number"), batch["valid_samples"],
                    strict=True)
                if number >= 0 and not valid}
            rows = jax.device_get(self._candidates(
                parameters, statistics, self._model.frozen,
                put_batch(batch, self._mesh, batch_windows)))
            for row, number in enumerate(numbers):
                if number < 0:  # padding
                    continue
                video_number, window = windows.items[number]
                if video_number in found:
                    candidates, scores = jax.tree.map(
                        lambda leaf, row=row: leaf[row], rows)
                    found[video_number].add(finds_in_seconds(
                        candidates, scores,
                        self._data.test[video_number].grid,
                        window.first_sample, samples_per_token))
        merged = {}
        for number, finds in found.items():
            video_id = self._data.test[number].video_id
            merged[video_id] = self._classified(video_id, merge_windows(
                finds.take(), self._data.class_names, self._config.evaluate))
        predictions, failed = self._gather(merged, failed)
        report = self._score(predictions, failed)
        return report, predictions

    def _gather(self, merged: dict[str, list[Detection]], failed: set[str]
                ) -> tuple[dict[str, list[Detection]], set[str]]:
        """Of all processes: detections in the videos' order, and failures."""
        if processes.count() > 1:
            parts = processes.gather(
                [merged, sorted(failed), self._broken.entries])
            merged = {video_id: [Detection(*row) for row in rows]
                      for part, *_ in parts for video_id, rows in part.items()}
            failed = {video_id for _, part, _ in parts for video_id in part}
            for *_, entries in parts:
                self._broken.absorb(entries)
        return {video.video_id: merged[video.video_id]
                for video in self._data.test
                if video.video_id not in failed}, failed

    def _classified(self, video_id: str, found: list[Detection]
                    ) -> list[Detection]:
        """With the scores of an external classifier, where there are any."""
        if self._video_scores is None:
            return found
        settings = self._config.evaluate
        scores = self._video_scores[video_id]
        if not self._config.data.class_agnostic:
            return rescore(found, scores, fusion=settings.video_scores_fusion)
        return fuse(found, scores, top_classes=settings.video_scores_top,
                    fusion=settings.video_scores_fusion)

    def _score(self, predictions: dict[str, list[Detection]],
               failed: set[str]) -> MapReport:
        if failed:
            logger.warning(
                "%d of %d test videos failed to decode and are not in the "
                "mAP: %s", len(failed), len(self._data.test),
                ", ".join(sorted(failed)))
        return evaluate_map(
            ground_truth(self._data, predictions), predictions,
            class_names=scored_classes(self._data, predictions),
            tiou_thresholds=tuple(self._config.evaluate.tiou_thresholds))


def ground_truth(data: DataSet, predictions: dict[str, list[Detection]]
                 ) -> dict[str, list[tuple[float, float, str]]]:
    """Actions of the testing videos that have predictions.

    Of one class where the predictions know no other.
    """
    one = (scored_classes(data, predictions) == (ANY_CLASS,))
    return {
        video.video_id: [(action.start_seconds, action.end_seconds,
                          ANY_CLASS if one else action.label)
                         for action in video.actions]
        for video in data.test if video.video_id in predictions}


def scored_classes(data: DataSet, predictions: dict[str, list[Detection]]
                   ) -> tuple[str, ...]:
    """The annotations' classes, but for proposals without a class."""
    if data.class_names == data.label_names or any(
            row.label != ANY_CLASS for rows in predictions.values()
            for row in rows):
        return data.label_names
    return (ANY_CLASS,)


def source_of_classes(config: Any) -> str:
    """Whose classes a mAP is of: to be said beside every one."""
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
    """The table, and what else made it."""
    print(format_map_table(report))
    print(f"classes from: {source_of_classes(config)}")
    if config.data.block_list:
        print(f"videos left out: {config.data.block_list}")


def write_results(workdir: Path, report: MapReport,
                  predictions: dict[str, list[Detection]],
                  facts: dict[str, Any], config: Any) -> None:
    """predictions.json and map.json, by the first process."""
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


def evaluate(config: Any, workdir: Path, *, report_pages: int | None = None
             ) -> MapReport:
    """The job: scores the best (or last) checkpoint of a work directory.

    With `report_pages` also writes pages of so many videos (0: of all) and
    of the split.
    """
    which = config.evaluate.checkpoint
    if which not in (BEST, LAST):
        raise InputError(f"config.evaluate.checkpoint={which!r}: choose "
                         f"{BEST} or {LAST}")
    imported = bool(config.head.checkpoint) and (
        config.adapter.kind == "none") and not config.adapter.standardise_last
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
    cache = window_reader(config, store, {"testing": data.test})
    output = workdir / config.evaluate.output
    if processes.is_first():
        output.mkdir(exist_ok=True)
    broken = BrokenVideos(
        output / BROKEN_FILE if processes.is_first() else None)
    for video in data.broken:
        broken.add(video.video_id, video.reason, BEFORE)
    report, predictions = Evaluator(
        config, data, model, mesh, cache, broken).run(
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
            truth=ground_truth(data, predictions), predictions=predictions,
            class_names=scored_classes(data, predictions),
            thresholds=workdir / THRESHOLDS_FILE, max_pages=report_pages,
            facts=[f"recipe {config.name}",
                   f"subset {config.data.test_subset}",
                   f"checkpoint {which}, step {step:,}"])
        print(f"the report: {index}")
    print(broken.report(), end="\n" if broken.reasons else "")
    return report
