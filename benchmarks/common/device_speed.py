"""Speed and memory of a recipe's steps on the devices of this machine."""

import dataclasses
import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks.common.made_up import make_batch, random_parameters
from losa_jax.data.records import Action, Video, VideoInfo, Window
from losa_jax.data.windows.batch import Inputs
from losa_jax.data.windows.sampling import test_windows_of, video_grid
from losa_jax.data.windows.skipped_videos import BrokenVideos
from losa_jax.distributed import sharding
from losa_jax.distributed.stop_signal import StopSignal
from losa_jax.jobs.evaluate import Evaluator
from losa_jax.jobs.setup import DataSet
from losa_jax.planning.estimate import matmul_flops, peak_bytes, trace_steps
from losa_jax.planning.topology import CHIPS
from losa_jax.training import build, specs
from losa_jax.training.restore import fresh_state
from losa_jax.training.step import TrainState

NUM_CLASSES = 20
MAX_ACTIONS = 64  # of a window, as --mode=plan takes them
MIN_STEPS, MAX_STEPS, MAX_SECONDS = 3, 20, 15.0
# Dense bfloat16 FLOP/s, by what jax calls a device.
PEAK_FLOPS = (
    (r"H200|H100", CHIPS["h100"].flops), (r"A100", CHIPS["a100"].flops),
    (r"TPU v4$", CHIPS["v4"].flops), (r"TPU v5( lite|e)$", CHIPS["v5e"].flops),
    (r"TPU v5p?$", CHIPS["v5p"].flops),
    (r"TPU v6( lite|e)$", CHIPS["v6e"].flops))


def peak_flops(device_kind: str) -> float | None:
    """Returns the rated FLOP/s of a device; None if it is not known."""
    # The modules for PCI Express are slower than the rated ones.
    if "PCIe" in device_kind:
        return None
    return next((flops for pattern, flops in PEAK_FLOPS
                 if re.search(pattern, device_kind)), None)


def measure_recipe(config: Any) -> dict[str, Any]:
    """Returns times and memory of training and evaluation steps, with random
    weights and random frames, on all devices."""
    mesh = build.build_mesh(config)
    # The programs that --mode=plan compiles are those of a run.
    steps = trace_steps(config, NUM_CLASSES, mesh)
    model = build.build_model(config, NUM_CLASSES, mesh, abstract=True)
    model = dataclasses.replace(model, frozen=random_parameters(model.frozen),
                                trained=random_parameters(model.trained))
    state, _ = fresh_state(config, model, mesh, steps_per_epoch=100)
    windows, clips = config.train.batch_windows, specs.window_clips(config)
    rng = np.random.default_rng(0)
    # The one in use and the next one, as a run has them.
    batches = [sharding.put_batch(jax.device_get(make_batch(
        config, NUM_CLASSES, rng, num_actions=MAX_ACTIONS)), mesh, windows)
        for _ in range(2)]
    key = jax.device_put(jax.random.key(0), sharding.replicated(mesh))
    jax.block_until_ready((state, model.frozen, batches))
    loaded_bytes = _peak_in_use()
    started = time.perf_counter()
    train = steps.train.lower().compile()
    compile_seconds = time.perf_counter() - started
    held = [state]
    del state

    def step(number: int) -> Any:
        held[0], metrics = train(held[0], model.frozen, batches[number % 2],
                                 key)
        return metrics

    seconds = _seconds_per_call(step)
    training = {
        "windows": windows, "compile_seconds": compile_seconds,
        **_rates(seconds, steps.train, windows * clips, mesh),
        "loaded_bytes": loaded_bytes, "peak_bytes": _peak_in_use(),
        "planned_bytes": peak_bytes(train.memory_analysis())
        + steps.train_batch_bytes}
    del batches
    return {"mesh": dict(mesh.shape), "training": training,
            "evaluation": _measure_evaluation(config, model, held[0], mesh,
                                              steps.evaluate)}


def _measure_evaluation(config: Any, model: build.Model, state: TrainState,
                        mesh: Mesh, traced: jax.stages.Traced
                        ) -> dict[str, Any]:
    """Returns the time of an evaluation step, and the share of a whole
    evaluation's time in which the devices are busy.

    The frames are in memory, so nothing is decoded. The rest is what a run
    does: it makes and copies batches, fetches results and applies NMS.
    """
    windows = build.evaluation_windows(config, mesh.shape)
    reader = _NoiseReader(config)
    videos = _made_up_videos(config)
    names = tuple(f"class_{number}" for number in range(NUM_CLASSES))
    evaluator = Evaluator(config, DataSet(names, names, (), videos, {}), model,
                          mesh, reader, BrokenVideos())
    _, inputs = next(reader.test_windows(videos[0]))
    batch = sharding.put_batch({
        "frames": np.stack([inputs["frames"]] * windows),
        "valid_samples": np.full(windows, config.window.samples, np.int32)},
        mesh, windows)
    predict = traced.lower().compile()
    seconds = _seconds_per_call(lambda number: predict(
        state.ema, state.statistics, model.frozen, batch))
    wall_seconds = []
    for _ in range(2):  # the first one compiles
        started = time.perf_counter()
        with StopSignal() as stop:
            evaluator.run(state.ema, state.statistics, stop)
        wall_seconds.append(time.perf_counter() - started)
    num_windows = sum(len(test_windows_of(video, config)) for video in videos)
    busy_seconds = seconds * -(-num_windows // windows)
    return {"windows": windows,
            **_rates(seconds, traced, windows * specs.window_clips(config),
                     mesh),
            "evaluated_windows": num_windows, "wall_seconds": wall_seconds[-1],
            "busy_share": busy_seconds / wall_seconds[-1]}


class _NoiseReader:
    """Test windows that are already in memory, as a `FrameReader`."""

    stream_threads, reads_samples = 2, True

    def __init__(self, config: Any):
        shape = (config.window.samples, *(config.augment.size,) * 2, 3)
        self._config = config
        self._frames = np.random.default_rng(0).integers(0, 256, shape,
                                                         np.uint8)

    def empty_window(self, num_samples: int) -> Inputs:
        return {"frames": np.zeros_like(self._frames[:num_samples])}

    def test_windows(self, video: Video, decoder_threads: int = 1,
                     samples: range | None = None
                     ) -> Iterator[tuple[Window, Inputs]]:
        frames = self._frames if samples is None else (
            self._frames[samples.start:samples.stop])
        return ((window, {"frames": frames})
                for window in test_windows_of(video, self._config))


def _made_up_videos(config: Any) -> tuple[Video, ...]:
    """Returns eight videos of four windows each, as THUMOS' mean video has."""
    frames = round(config.window.samples * config.window.frame_stride * 2.5)
    info = VideoInfo(Path("noise.mp4"), 30.0, frames, frames / 30.0,
                     config.augment.size, config.augment.size)
    grid = video_grid(info, config.window)
    return tuple(Video(f"video_{number}", info, grid,
                       (Action(1.0, 4.0, f"class_{number}"),))
                 for number in range(8))


def _seconds_per_call(call: Callable[[int], Any]) -> float:
    """Returns the median; the first call does not count."""
    jax.block_until_ready(call(0))
    seconds: list[float] = []
    while len(seconds) < MIN_STEPS or (
            len(seconds) < MAX_STEPS and sum(seconds) < MAX_SECONDS):
        started = time.perf_counter()
        jax.block_until_ready(call(len(seconds) + 1))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _rates(seconds: float, traced: jax.stages.Traced, clips: int, mesh: Mesh
           ) -> dict[str, Any]:
    flops = matmul_flops(traced.jaxpr)
    peak = peak_flops(jax.devices()[0].device_kind)
    return {"seconds_per_step": seconds, "clips_per_second": clips / seconds,
            "flops_per_step": flops, "share_of_peak": (
                flops / seconds / (peak * mesh.size) if peak else None)}


def _peak_in_use() -> int | None:
    """Returns the most memory in use so far on the fullest device; None where
    the backend does not report it."""
    statistics_of_each = [device.memory_stats() or {}
                          for device in jax.local_devices()]
    peaks = [one["peak_bytes_in_use"] for one in statistics_of_each
             if "peak_bytes_in_use" in one]
    return max(peaks, default=None)
