"""--mode=train: read from top to bottom, this is what a run does."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from losa_jax.data.pipeline import (
    BrokenVideos,
    TrainWindows,
    WindowReader,
    train_dataset,
)
from losa_jax.data.source import SourceVideo
from losa_jax.detection.metrics import MapReport
from losa_jax.detection.thresholds import best_f1_thresholds
from losa_jax.errors import InputError
from losa_jax.jobs.evaluate import (
    MAP_FILE,
    PREDICTIONS_FILE,
    Evaluator,
    ground_truth,
    print_report,
    scored_classes,
    write_results,
)
from losa_jax.jobs.pretrain import ensure_backbone
from losa_jax.jobs.setup import (
    DataSet,
    load_data,
    start_log,
    store_config,
    window_reader,
    write_json,
)
from losa_jax.jobs.stop import Interrupted, StopSignal
from losa_jax.models.detector import FeatureStatistics
from losa_jax.training import build, sharding
from losa_jax.training.cached import open_store
from losa_jax.training.checkpoint import (
    BEST,
    LAST,
    Checkpoints,
    abstract_state,
    same_facts,
)
from losa_jax.training.encoder import encoder_inputs
from losa_jax.training.optimizer import learning_rate_schedule
from losa_jax.training.restore import (
    RUN_FACTS,
    fresh_state,
    place,
    run_facts,
)
from losa_jax.training.state import (
    TrainState,
    parameter_table,
    tree_size,
)
from losa_jax.training.step import make_moments_step
from losa_jax.training.writer import MetricWriter

COST_FILE = "cost.json"
# Each class's score of best F1 on the data that the run was evaluated on.
THRESHOLDS_FILE = "thresholds.json"

logger = logging.getLogger(__name__)


def train(config: Any, workdir: Path) -> MapReport:
    """Trains, evaluates on the way, resumes if the folder holds a run.

    Returns:
      the last evaluation's report of the best checkpoint.

    Raises:
      InputError: bad input or configuration, or a non-finite loss.
      Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    # --- Folder, backbone, data -------------------------------------------
    start_log(workdir)
    # First what costs nothing to refuse, then videos and weights.
    mesh = build.build_mesh(config)
    if not config.features.folder:
        ensure_backbone(config)
    store = open_store(config)
    data = load_data(config, workdir, store=store)
    cache = window_reader(config, store, {
        "training": data.train, "testing": data.test})
    if store is not None:
        print(f"features from {config.data.cache or config.features.folder}:"
              " no video is read, and config.augment changes nothing")
    num_windows = len(data.train) * config.window.per_video
    steps_per_epoch = num_windows // config.train.batch_windows
    if steps_per_epoch == 0:
        raise InputError(
            f"{num_windows} training windows are fewer than "
            f"config.train.batch_windows={config.train.batch_windows}")
    total_steps = config.train.epochs * steps_per_epoch

    # --- Model, optimizer, functions --------------------------------------
    model = build.build_model(config, len(data.class_names), mesh)
    facts = run_facts(config, data.class_names, model)
    state, optimizer = fresh_state(config, model, mesh, steps_per_epoch)
    print(parameter_table({"trained": state.trained,
                           "frozen": model.frozen}))
    print(f"mesh {dict(mesh.shape)}, tapped blocks {model.tap_layers}, "
          f"{total_steps} steps of {config.train.batch_windows} windows")
    train_step = build.jit_train_step(config, model, optimizer,
                                      len(data.class_names), state)
    evaluator = Evaluator(config, data, model, mesh, cache)

    # --- This run's last checkpoint, or a fresh start ----------------------
    broken = BrokenVideos()
    transform = TrainWindows(data.train, data.class_names, config, broken,
                             cache=cache)
    batches = iter(train_dataset(
        transform, num_windows, seed=config.seed,
        batch_windows=config.train.batch_windows,
        num_threads=config.data.num_threads))
    checkpoints = Checkpoints(workdir)
    best_map = -math.inf
    if checkpoints.latest_step() is not None:
        state, saved = checkpoints.restore(
            LAST, abstract_state(state), batches)
        same_facts(saved, facts, RUN_FACTS, workdir)
        best_map = -math.inf if saved["best_map"] is None else saved[
            "best_map"]
        print(f"resumed {workdir} at step {int(state.step)} of "
              f"{total_steps}")
    elif config.adapter.standardise_last:
        statistics = measure_statistics(config, data, model, mesh, cache)
        state = place(state.replace(statistics=statistics), mesh)
    step = first_step = int(state.step)
    store_config(config, workdir)

    # --- The loop -----------------------------------------------------------
    schedule = learning_rate_schedule(
        config.train.learning_rate,
        round(config.train.warmup_epochs * steps_per_epoch),
        config.train.schedule_epochs * steps_per_epoch)
    key = jax.random.key(config.seed)
    pending: list[tuple[int, dict, np.ndarray]] = []
    started, data_seconds = time.perf_counter(), 0.0
    bar = tqdm(total=total_steps, initial=step, desc="training", unit="step")

    def save(which: str, iterator) -> None:
        saved = {**facts, "best_map": None if math.isinf(best_map)
                 else best_map, "epoch": step // steps_per_epoch}
        checkpoints.save(which, step, state, saved, iterator)

    def flush() -> None:
        nonlocal started, data_seconds
        _write_metrics(pending, writer, data.train, bar, schedule, started,
                       data_seconds)
        pending.clear()
        started, data_seconds = time.perf_counter(), 0.0

    with MetricWriter(workdir, step) as writer, StopSignal() as stop:
        while step < total_steps:
            waiting = time.perf_counter()
            batch = next(batches)
            data_seconds += time.perf_counter() - waiting
            numbers = batch.pop("video_number")
            batch = sharding.put(batch, sharding.batch_shardings(batch, mesh))
            if step == first_step:
                write_cost(workdir, state, model, train_step.lower(
                    state, model.frozen, batch, key).compile())
            state, metrics = train_step(state, model.frozen, batch, key)
            step += 1
            bar.update()
            pending.append((step, metrics, numbers))
            epoch_ends = step % steps_per_epoch == 0
            epoch = step // steps_per_epoch
            if step % config.train.log_every_steps == 0 or epoch_ends:
                flush()
            if epoch_ends and _is_due(config.train, epoch):
                report, _ = evaluator.run(state.ema, state.statistics)
                writer.write(step, {"map": 100 * report.average_map})
                bar.write(f"epoch {epoch}: average mAP "
                          f"{100 * report.average_map:.2f}")
                if report.average_map > best_map:
                    best_map = report.average_map
                    save(BEST, None)
                started = time.perf_counter()
            due = epoch % config.train.checkpoint_every_epochs == 0
            came = stop.came
            if (epoch_ends and due) or step == total_steps or came:
                flush()
                save(LAST, batches)
            if came and step < total_steps:
                raise Interrupted(
                    f"stopped by {came} at step {step} of {total_steps}"
                    ", everything is saved: start the same command again to "
                    "go on")
    bar.close()

    # --- The best checkpoint's mAP and predictions --------------------------
    best, _ = checkpoints.restore(BEST, abstract_state(state))
    report, predictions = evaluator.run(best.ema, best.statistics)
    best_step = int(best.step)
    write_results(workdir, report, predictions,
                  {"checkpoint": BEST, "step": best_step})
    write_json(workdir / THRESHOLDS_FILE, best_f1_thresholds(
        ground_truth(data, predictions), predictions,
        class_names=scored_classes(data, predictions)))
    checkpoints.close()
    print_report(report, config)
    print(f"best checkpoint: step {best_step} of {total_steps}; wrote "
          f"{workdir / PREDICTIONS_FILE} and {workdir / MAP_FILE}")
    _report_broken(data, broken)
    return report


def _is_due(settings: Any, epoch: int) -> bool:
    """Whether to evaluate after this epoch; always after the last."""
    if epoch == settings.epochs:
        return True
    return (epoch >= settings.evaluate_from_epoch
            and epoch % settings.evaluate_every_epochs == 0)


def _write_metrics(pending, writer: MetricWriter,
                   videos: tuple[SourceVideo, ...], bar: tqdm, schedule,
                   started: float, data_seconds: float) -> None:
    """Fetches the steps since the last log: the only wait for the device.

    `started` is when the last log ended; what the device does only counts
    once its results are here.

    Raises:
      InputError: a loss that is not finite; nothing of it was saved.
    """
    for step, metrics, numbers in pending:
        values = {name: float(value)
                  for name, value in jax.device_get(metrics).items()}
        if not all(map(math.isfinite, values.values())):
            names = [videos[n % len(videos)].video_id for n in numbers]
            writer.write(step, values)
            bar.close()
            bad = ", ".join(f"{name}={value}" for name, value
                            in values.items() if not math.isfinite(value))
            raise InputError(
                f"step {step}: {bad}. The batch held the videos "
                f"{', '.join(names)}. Nothing of this step is saved; look "
                "at these videos' annotations, lower "
                "config.train.learning_rate, and start again to resume from "
                "the last checkpoint")
        values["learning_rate"] = float(schedule(step - 1))
        writer.write(step, values)
    seconds = time.perf_counter() - started
    if pending:
        writer.write(pending[-1][0], {
            "seconds_per_step": seconds / len(pending),
            "data_wait_share": data_seconds / max(seconds, 1e-9)})
        bar.set_postfix(
            loss=f"{values['loss']:.3f}",
            data_wait=f"{100 * data_seconds / max(seconds, 1e-9):.0f}%")


def write_cost(workdir: Path, state: TrainState, model: build.Model,
               compiled: jax.stages.Compiled) -> None:
    """cost.json: parameters, and what XLA says a step needs a device."""
    memory = compiled.memory_analysis()
    write_json(workdir / COST_FILE, {
        "trained_parameters": tree_size(state.trained),
        "frozen_parameters": tree_size(model.frozen),
        "step_argument_bytes": memory.argument_size_in_bytes,
        "step_temporary_bytes": memory.temp_size_in_bytes})


def measure_statistics(config: Any, data: DataSet, model: build.Model,
                       mesh: Mesh, cache: WindowReader
                       ) -> FeatureStatistics:
    """Channel mean and deviation of the backbone's last features.

    Over one window of each training video, without augmentation.
    """
    transform = TrainWindows(data.train, data.class_names, config,
                             BrokenVideos(), cache=cache, augmented=False)
    batch_windows = config.train.batch_windows
    dataset = train_dataset(
        transform, len(data.train), seed=config.seed,
        batch_windows=batch_windows, num_threads=config.data.num_threads,
        num_epochs=1)
    moments = jax.jit(make_moments_step(model.encode, model.tubelet))
    sums = [0.0, 0.0, 0.0]
    for batch in tqdm(dataset, total=len(data.train) // batch_windows,
                      desc="feature statistics", unit="batch", leave=False):
        inputs = {**encoder_inputs(batch),
                  "valid_samples": batch["valid_samples"]}
        inputs = sharding.put(inputs, sharding.batch_shardings(inputs, mesh))
        parts = jax.device_get(moments(model.frozen, model.trained, inputs))
        # In float64: the difference of two large sums follows.
        sums = [total + np.asarray(part, np.float64)
                for total, part in zip(sums, parts, strict=True)]
    count, total, squares = sums
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean ** 2, 1e-12))
    return FeatureStatistics(jnp.asarray(mean, jnp.float32),
                             jnp.asarray(deviation, jnp.float32))


def _report_broken(data: DataSet, running: BrokenVideos) -> None:
    lines = [f"  {video.video_id}: {video.reason}" for video in data.broken]
    lines += [f"  {name}: {reason}"
              for name, reason in running.reasons.items()]
    if lines:
        print(f"{len(lines)} videos were skipped "
              "(config.data.on_broken_video=skip):\n" + "\n".join(lines))
