"""--mode=train: the training run, in the order of its steps."""

import contextlib
import dataclasses
import logging
import math
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from tqdm import tqdm

from losa_jax.data.records import Video
from losa_jax.data.windows import examples, readers, skipped_videos
from losa_jax.detection.metrics import MapReport, best_f1_thresholds
from losa_jax.distributed import (
    processes,
    remote_workdir,
    sharding,
    stop_signal,
    workdir_lock,
)
from losa_jax.errors import InputError
from losa_jax.jobs import cache, evaluate, setup
from losa_jax.jobs.again import compare
from losa_jax.jobs.fit_config import fit_config
from losa_jax.models.detector import FeatureStatistics
from losa_jax.models.ops import params
from losa_jax.training import (
    build,
    config_ranges,
    metrics,
    restore,
    rounds,
    specs,
    start_from,
    training_set,
)
from losa_jax.training.checkpoint import BEST, LAST
from losa_jax.training.device_prefetch import DataClock, DevicePrefetch
from losa_jax.training.encoder import encoder_inputs
from losa_jax.training.run_facts import same_facts
from losa_jax.training.step import TrainState, make_moments_step
from losa_jax.utils import atomic_write, run_files, xla_options
from losa_jax.utils.interrupt import interrupted
from losa_jax.utils.threads import thread_count
from losa_jax.weights import backbone_folder

logger = logging.getLogger(__name__)

# A step whose metrics were not fetched yet: number, metrics, numbers of the
# batch's videos.
_Pending = tuple[int, dict[str, jax.Array], np.ndarray]


def train(config: Any, workdir: Path) -> MapReport:
    """Trains, evaluates on the way, resumes if the folder holds a run.

    Returns:
      the last evaluation's report of the best checkpoint.

    Raises:
      InputError: bad input or configuration, a folder that another process
        uses, or a non-finite loss.
      Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    setup.check_config(config)
    atomic_write.make_folder(workdir)
    with workdir_lock.held(workdir):
        return _train(config, workdir)


def _train(config: Any, workdir: Path) -> MapReport:
    # --- Folder, backbone, data -------------------------------------------
    setup.start_log(workdir)
    fit_config(config, workdir)
    for line in config_ranges.doubts(config):
        logger.warning("%s", line)
    # Cheap checks come first, then videos and weights.
    mesh = build.build_mesh(config)
    if not config.features.folder:
        specs.configured_backbone(config)
    store, fill = cache.open_store(config, workdir)
    data = setup.load_data(config, workdir, store=store, fill=fill)
    reader = setup.window_reader(config, store, {
        "training": data.train, "testing": data.test})
    settings, batch_windows = config.train, config.train.batch_windows
    num_windows = len(data.train) * config.window.per_video
    steps_per_epoch = num_windows // batch_windows
    if steps_per_epoch == 0:
        raise InputError(
            f"{num_windows} training windows are fewer than "
            f"config.train.batch_windows={batch_windows}: lower it, or raise "
            "config.window.per_video")
    total_steps = settings.epochs * steps_per_epoch
    share = sharding.local_share(mesh, batch_windows, config.window.samples)
    threads = thread_count(config.data.num_threads)

    # --- Model, optimizer, functions --------------------------------------
    model = build.build_model(config, len(data.class_names), mesh)
    facts = (restore.run_facts(config, data.class_names, model)
             | restore.backbone_place(config, workdir)
             | training_set.describe(data.train, steps_per_epoch)
             | compare.data_facts(config, data))
    state, optimizer = restore.fresh_state(config, model, mesh,
                                           steps_per_epoch)
    checkpoints, start = rounds.open_run(config, workdir, facts, model, mesh,
                                         state)
    print(metrics.parameter_table({"trained": state.trained,
                                   "frozen": model.frozen}))
    if store is None:
        size = 3 * config.augment.size ** 2 * len(share.samples)
        kept = examples.BATCHES_IN_MEMORY * len(share.rows)
        print(f"data: this process reads {len(share.rows)} windows of a "
              f"batch, {len(share.samples)} of the {share.window_samples} "
              f"samples of each, with {threads} threads; up to {kept} "
              f"windows of {size / 2**20:.1f} MiB in memory, "
              f"{kept * size / 2**30:.2f} GiB")
    else:
        print(f"features from {config.data.cache or config.features.folder}:"
              " no video is read, and config.augment has no effect")
    print(f"mesh {dict(mesh.shape)}, tapped blocks {model.tap_layers}, "
          f"{total_steps} steps of {batch_windows} windows")
    train_step = build.jit_train_step(config, model, optimizer, state, mesh)
    skipped = setup.skipped_videos(workdir, data)
    evaluator = evaluate.Evaluator(config, data, model, mesh, reader, skipped)

    # --- This run's last checkpoint, or a fresh start ----------------------
    clock = DataClock()
    windows = examples.TrainWindows(data.train, data.class_names, config,
                                    reader=reader)
    batches = DevicePrefetch(
        lambda first_batch: iter(examples.train_batches(
            windows, num_windows, seed=config.seed,
            batch_windows=batch_windows, rows=share.rows,
            samples=share.samples, num_threads=threads,
            first_batch=first_batch)),
        lambda batch: sharding.put_batch(batch, mesh, batch_windows, share),
        clock, skipped)
    if checkpoints.latest_step() is not None:
        saved = checkpoints.facts()
        if start_from.FACT in saved:
            facts[start_from.FACT] = saved[start_from.FACT]
        same_facts(saved, facts, restore.RUN_FACTS, workdir)
        training_set.check_same(saved, facts, workdir=workdir,
                                accepted=config.data.accept_changes)
        state, _ = checkpoints.restore(LAST, state, batches)
        print(f"resumed {workdir} at step {int(state.step)} of "
              f"{total_steps}")
    elif start is not None:
        state, facts[start_from.FACT] = start
    elif config.adapter.standardize_last:
        with stop_signal.StopSignal(in_step=True) as stop:
            statistics = measure_statistics(config, data, model, mesh, reader,
                                            skipped, stop)
        state = dataclasses.replace(state, statistics=sharding.put(
            statistics, sharding.of_leaves(state.statistics)))
    step = first_step = int(state.step)
    last_evaluated = -1  # by this process
    # The config is known to fit the folder's run.
    if config.backbone.keep_copy and model.spec and processes.is_first():
        backbone_folder.copy_backbone(Path(config.backbone.checkpoint),
                                      workdir / run_files.BACKBONE_FOLDER)
    setup.write_json(workdir / run_files.CONFIG_FILE, config.to_dict())

    # --- The loop -----------------------------------------------------------
    schedule = restore.run_schedule(settings, steps_per_epoch)
    key = params.named_key(jax.random.key(config.seed), "steps")
    pending: list[_Pending] = []
    bar = tqdm(total=total_steps, initial=step, desc="training", unit="step")

    def is_evaluated(step: int) -> bool:
        epoch, after = divmod(step, steps_per_epoch)
        return step == total_steps or (
            step > 0 and after == 0 and epoch >= settings.evaluate_from_epoch
            and epoch % settings.evaluate_every_epochs == 0)

    def flush() -> None:
        _write_metrics(pending, writer, data.train, bar, schedule, clock)
        pending.clear()
        skipped.require_some(data.train)
        if advice := clock.advice(config):
            bar.write(advice)

    with (contextlib.closing(metrics.MetricWriter(workdir, step)) as writer,
          stop_signal.StopSignal(in_step=True) as stop,
          contextlib.closing(bar), contextlib.closing(batches),
          checkpoints.awaited()):
        clock.restart()
        while True:
            epoch, epoch_ends = (step // steps_per_epoch,
                                 step % steps_per_epoch == 0)
            evaluates = is_evaluated(step)
            came = stop.came_now() if step > first_step else ""
            if step > first_step and (evaluates or came or (
                    epoch_ends
                    and epoch % settings.checkpoint_every_epochs == 0)):
                flush()
                setup.share_skipped(skipped)
                skipped.require_some(data.train)
                checkpoints.save(step, state, {**facts, "epoch": epoch},
                                 batches)
                clock.restart()
                if came:
                    raise interrupted(came, "everything is saved at step "
                                      f"{step} of {total_steps}")
            # Also one that an earlier start did not end.
            if evaluates and checkpoints.evaluated_step() != step:
                report, predictions = evaluator.run(state.ema,
                                                    state.statistics, stop)
                last_evaluated = step
                writer.write(step, {
                    "map": 100 * report.average_map,
                    **metrics.memory_diagnostics(),
                    **metrics.gate_diagnostics(state.ema, model.tap_layers,
                                               config.adapter.gates)})
                bar.write(f"epoch {epoch}: average mAP "
                          f"{100 * report.average_map:.2f} (classes from "
                          f"{evaluate.source_of_classes(config)})")
                # That of others may differ in a last digit.
                checkpoints.set_evaluated(
                    step, processes.gather(report.average_map)[0])
                clock.restart()
            if step == total_steps:
                break
            checkpoints.check()
            facts_of_batch, batch = batches.next()
            if step == first_step:
                bar.write("compiling the training step; this takes up to some "
                          "minutes, the bar moves afterwards", file=sys.stdout)
                write_cost(workdir, state, model, train_step.lower(
                    state, model.frozen, batch, key).compile())
            state, numbers = train_step(state, model.frozen, batch, key)
            step += 1
            # Reads while the device computes; an evaluation needs its memory.
            if not is_evaluated(step):
                batches.fetch(numbers)
            bar.update()
            pending.append((step, numbers, facts_of_batch["video_number"]))
            if step % settings.log_every_steps == 0 or (
                    step % steps_per_epoch == 0):
                flush()

    # --- The best checkpoint's mAP and predictions --------------------------
    best, _ = checkpoints.restore(BEST, state)
    checkpoints.close()
    if int(best.step) != last_evaluated:  # else the results are here
        with stop_signal.StopSignal(in_step=True) as stop:
            report, predictions = evaluator.run(best.ema, best.statistics,
                                                stop)
    truth, class_names = evaluate.ground_truth(data, predictions)
    setup.write_json(workdir / run_files.THRESHOLDS_FILE, best_f1_thresholds(
        truth, predictions, class_names=class_names))
    evaluate.report_results(workdir, config, report, predictions, skipped,
                            checkpoint=BEST, step=int(best.step))
    compare.compare_rounds(config, workdir, data, facts, predictions)
    print(next_steps(config, workdir))
    return report


def next_steps(config: Any, workdir: Path) -> str:
    """Returns the commands that use a finished run."""
    place = remote_workdir.remote_of(workdir) or workdir
    lines = ["what can be done next:"]
    if not config.features.folder and place == workdir:
        lines.append("  predict on new videos:  python -m losa_jax.predict "
                     "VIDEO_OR_FOLDER --checkpoint="
                     f"{shlex.quote(str(workdir))}")
    lines.append("  pages of the results:   the same command with "
                 "--mode=eval --report")
    if place == workdir:
        lines.append("  train again from it:    the same command with other "
                     "annotations, or --config.data.reviews=FOLDER")
    if not config.features.folder:
        lines.append("  a folder to hand on:    the same command with "
                     "--mode=export")
    return "\n".join(lines)


def _write_metrics(pending: list[_Pending], writer: metrics.MetricWriter,
                   videos: tuple[Video, ...], bar: tqdm,
                   schedule: Callable[[int], Any], clock: DataClock) -> None:
    """Fetches and writes the metrics of the steps since the last log.

    This is the only place of the loop that waits for the device.

    Raises:
      InputError: a loss that is not finite; its step was not saved.
    """
    for step, numbers, videos_of_batch in pending:
        values = {name: float(value)
                  for name, value in jax.device_get(numbers).items()}
        if not all(map(math.isfinite, values.values())):
            # Several processes may have read parts of one window.
            names = dict.fromkeys(
                videos[n % len(videos)].video_id for some in
                processes.gather(videos_of_batch.tolist()) for n in some)
            writer.write(step, values)
            bar.close()
            bad = ", ".join(f"{name}={value}" for name, value
                            in values.items() if not math.isfinite(value))
            raise InputError(
                f"step {step}: {bad}. The batch held the videos "
                f"{', '.join(names)}. Check their annotations or lower "
                "config.train.learning_rate, then start again: the run "
                "resumes from the last checkpoint")
        values["learning_rate"] = float(schedule(step - 1))
        writer.write(step, values)
    if pending:
        costs = clock.metrics(len(pending))
        writer.write(pending[-1][0], costs)
        frames = costs["decoded_frames_per_second"]
        shown = {"loss": f"{values['loss']:.3f}",
                 "data_wait": f"{100 * costs['data_wait_share']:.0f}%"}
        if frames >= 0.5:  # none are decoded where frames or features are kept
            shown["frames"] = f"{frames:.0f}/s"
        bar.set_postfix(shown)


def write_cost(workdir: Path, state: TrainState, model: build.Model,
               compiled: jax.stages.Compiled) -> None:
    """Writes cost.json: parameters, and XLA's memory of a step per device."""
    memory = compiled.memory_analysis()
    setup.write_json(workdir / run_files.COST_FILE, {
        "trained_parameters": optax.tree.size(state.trained),
        "frozen_parameters": optax.tree.size(model.frozen),
        # Some backends do not report memory.
        "step_argument_bytes": memory and memory.argument_size_in_bytes,
        "step_temporary_bytes": memory and memory.temp_size_in_bytes})


def measure_statistics(config: Any, data: setup.DataSet, model: build.Model,
                       mesh: Mesh, reader: readers.WindowReader,
                       skipped: skipped_videos.BrokenVideos,
                       stop: stop_signal.StopSignal) -> FeatureStatistics:
    """Returns channel mean and deviation of the backbone's last features.

    They are of one window of each training video, without augmentation; the
    first videos fill up the last batch.
    """
    windows = examples.TrainWindows(data.train, data.class_names, config,
                                    reader=reader, augmented=False)
    batch_windows = config.train.batch_windows
    num_batches = -(-len(data.train) // batch_windows)
    share = sharding.local_share(mesh, batch_windows, config.window.samples)
    dataset = examples.train_batches(
        windows, num_batches * batch_windows, seed=config.seed,
        batch_windows=batch_windows, num_batches=num_batches,
        rows=share.rows, samples=share.samples,
        num_threads=thread_count(config.data.num_threads))
    moments = jax.jit(make_moments_step(model.encode, model.tubelet),
                      out_shardings=sharding.replicated(mesh),
                      compiler_options=xla_options.compiler_options(mesh))
    sums: list[Any] = [0.0, 0.0, 0.0]
    for batch in tqdm(dataset, total=num_batches, desc="feature statistics",
                      unit="batch", leave=False):
        stop.raise_if_asked("before the first step")
        skipped.collect(batch, skipped_videos.TRAINING)
        inputs = sharding.put_batch(
            {**encoder_inputs(batch), "valid_samples": batch["valid_samples"],
             "readable": batch["readable"]}, mesh, batch_windows, share)
        parts = jax.device_get(moments(model.frozen, model.trained, inputs))
        # In float64, because the difference of two large sums follows.
        sums = [total + np.asarray(part, np.float64)
                for total, part in zip(sums, parts, strict=True)]
    setup.share_skipped(skipped)
    skipped.require_some(data.train)
    count, total, squares = sums
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean ** 2, 1e-12))
    return FeatureStatistics(jnp.asarray(mean, jnp.float32),
                             jnp.asarray(deviation, jnp.float32))
