"""--mode=eval: a finished work directory to mAP and predictions.json."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from losa_jax import timeline
from losa_jax.data.pipeline import (
    BrokenVideos,
    TestWindows,
    WindowReader,
    test_dataset,
)
from losa_jax.data.source import SourceVideo
from losa_jax.data.video_scores import load_video_scores
from losa_jax.detection.fusion import fuse, rescore
from losa_jax.detection.metrics import (
    MapReport,
    evaluate_map,
    format_map_table,
)
from losa_jax.detection.postprocess import Candidates, suppress_rows
from losa_jax.detection.predictions import Detection, write_predictions
from losa_jax.errors import InputError
from losa_jax.jobs.setup import (
    ANY_CLASS,
    DataSet,
    load_data,
    start_log,
    window_reader,
    write_json,
)
from losa_jax.training import build, sharding
from losa_jax.training.cached import open_store
from losa_jax.training.candidates import make_candidates_step
from losa_jax.training.checkpoint import (
    BEST,
    LAST,
    Checkpoints,
    abstract_state,
    same_facts,
)
from losa_jax.training.restore import MODEL_FACTS, fresh_state, run_facts

logger = logging.getLogger(__name__)

PREDICTIONS_FILE = "predictions.json"
MAP_FILE = "map.json"


class Evaluator:
    """Test windows to mAP; compiled once, used after many epochs."""

    def __init__(self, config: Any, data: DataSet, model: build.Model,
                 mesh: Mesh, cache: WindowReader):
        self._config, self._data = config, data
        self._model, self._mesh, self._cache = model, mesh, cache
        settings = config.evaluate
        self._video_scores = load_video_scores(
            settings.video_scores, data.label_names,
            [video.video_id for video in data.test]
        ) if settings.video_scores else None
        self._candidates = jax.jit(make_candidates_step(config, model))

    def run(self, parameters: Any, statistics: Any
            ) -> tuple[MapReport, dict[str, list[Detection]]]:
        """Predicts every window, merges them by video, scores.

        Videos that fail to decode under data.on_broken_video="skip" are left
        out of the ground truth, with a warning and a count.
        """
        broken = BrokenVideos()
        windows = TestWindows(self._data.test, self._config, broken,
                              cache=self._cache)
        batch_windows = self._config.evaluate.batch_windows
        dataset, num_batches = test_dataset(
            windows, batch_windows=batch_windows,
            num_threads=self._config.data.num_threads)
        found: list[list[tuple[np.ndarray, ...]]] = [
            [] for _ in self._data.test]
        for batch in tqdm(dataset, total=num_batches, desc="evaluating",
                          unit="batch", leave=False):
            numbers = batch.pop("window_number")
            batch = sharding.put(
                batch, sharding.batch_shardings(batch, self._mesh))
            candidates = jax.device_get(self._candidates(
                parameters, statistics, self._model.frozen, batch))
            for row, number in enumerate(numbers):
                if number >= 0:
                    video_number, window = windows.items[number]
                    found[video_number].append(self._to_seconds(
                        *jax.tree.map(lambda leaf, row=row: leaf[row],
                                      candidates),
                        self._data.test[video_number], window.first_sample))
        predictions = {
            video.video_id: self._classified(
                video.video_id, self._merge(found[number]))
            for number, video in enumerate(self._data.test)
            if video.video_id not in broken.reasons}
        report = self._score(predictions, broken)
        return report, predictions

    def _to_seconds(self, candidates: Candidates,
                    class_scores: np.ndarray | None, video: SourceVideo,
                    first_sample: int) -> tuple[np.ndarray, ...]:
        window = self._config.window
        alive = candidates.alive
        seconds = timeline.seconds_from_tokens(
            candidates.segments[alive], video.grid, first_sample,
            window.frames / window.tokens)
        rows = [seconds, candidates.scores[alive], candidates.labels[alive]]
        if class_scores is not None:
            rows.append(class_scores[alive])
        return tuple(rows)

    def _merge(self, found: Sequence[tuple[np.ndarray, ...]]
               ) -> list[Detection]:
        if not found:
            return []
        settings = self._config.evaluate
        names = self._data.class_names
        segments, scores, labels, *class_scores = (
            np.concatenate(parts) for parts in zip(*found, strict=True))
        # Cutting to the video can leave nothing of a segment.
        real = segments[:, 1] > segments[:, 0]
        left = suppress_rows(
            segments[real], scores[real], labels[real],
            num_classes=len(names), method=settings.nms,
            multiclass=settings.nms_per_class, sigma=settings.nms_sigma,
            iou_threshold=settings.nms_iou_threshold,
            min_score=settings.nms_min_score,
            max_kept=settings.max_detections,
            voting_threshold=settings.voting_threshold,
            voting=settings.voting)
        every: list[dict[str, float] | None] = [None] * len(left.rows)
        if class_scores:
            every = [dict(zip(names, row, strict=True))
                     for row in class_scores[0][real][left.rows]]
        return [
            Detection(float(start), float(end), names[label], float(score),
                      scores)
            for (start, end), score, label, scores in zip(
                left.segments, left.scores, left.labels, every, strict=True)]

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
               broken: BrokenVideos) -> MapReport:
        if broken.reasons:
            logger.warning(
                "%d of %d test videos failed to decode and are not in the "
                "mAP: %s", len(broken.reasons), len(self._data.test),
                ", ".join(sorted(broken.reasons)))
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


def print_report(report: MapReport, config: Any) -> None:
    """The table, and what else made it."""
    print(format_map_table(report))
    settings = config.evaluate
    if settings.video_scores:
        print(f"classes from {settings.video_scores} "
              f"({settings.video_scores_fusion}, top "
              f"{settings.video_scores_top}): this mAP is the classifier's "
              "too")
    elif config.data.class_agnostic:
        print("proposals of any class: no classifier (config.evaluate."
              "video_scores)")
    if config.data.block_list:
        print(f"videos left out: {config.data.block_list}")


def write_results(workdir: Path, report: MapReport,
                  predictions: dict[str, list[Detection]],
                  facts: dict[str, Any]) -> None:
    """predictions.json and map.json."""
    write_predictions(workdir / PREDICTIONS_FILE, predictions)
    content = dataclasses.asdict(report)
    content["average_precision"] = [
        [None if np.isnan(value) else float(value) for value in row]
        for row in report.average_precision]
    for key, value in content.items():
        if isinstance(value, np.ndarray):
            content[key] = value.tolist()
    write_json(workdir / MAP_FILE, {**facts, **content})


def evaluate(config: Any, workdir: Path) -> MapReport:
    """The job: scores the best (or last) checkpoint of a work directory."""
    which = config.evaluate.checkpoint
    if which not in (BEST, LAST):
        raise InputError(f"config.evaluate.checkpoint={which!r}: choose "
                         f"{BEST} or {LAST}")
    imported = bool(config.head.checkpoint) and (
        config.adapter.kind == "none") and not config.adapter.standardise_last
    has_run = (workdir / "checkpoints").is_dir()
    if not has_run and not imported:
        raise InputError(f"--workdir={workdir} holds no run to evaluate: "
                         "name the folder of a run, or train first "
                         "(--mode=train)")
    start_log(workdir)
    mesh = build.build_mesh(config)
    store = open_store(config)
    data = load_data(config, workdir, subsets=("test",), store=store)
    model = build.build_model(config, len(data.class_names), mesh)
    state, _ = fresh_state(config, model, mesh, steps_per_epoch=1)
    if has_run:
        checkpoints = Checkpoints(workdir)
        which = which if checkpoints.latest_step(which) is not None else LAST
        state, facts = checkpoints.restore(which, abstract_state(state))
        checkpoints.close()
        same_facts(facts, run_facts(config, data.class_names, model),
                   MODEL_FACTS, workdir)
    else:
        which = config.head.checkpoint
    cache = window_reader(config, store, {"testing": data.test})
    report, predictions = Evaluator(config, data, model, mesh, cache).run(
        state.ema, state.statistics)
    step = int(state.step)
    output = workdir / config.evaluate.output
    output.mkdir(exist_ok=True)
    write_results(output, report, predictions,
                  {"checkpoint": which, "step": step})
    print_report(report, config)
    print(f"checkpoint: {which}, step {step}; wrote "
          f"{output / PREDICTIONS_FILE} and {output / MAP_FILE}")
    return report
