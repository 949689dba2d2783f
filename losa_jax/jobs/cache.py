"""--mode=cache: the frozen backbone, once over the data set, onto disk.

The backbone never changes, so neither do its features of a clip. Training
and evaluation with the same --config.data.cache then read no video and run
no backbone. Interrupted runs go on with the first shard that is not whole.
"""

import itertools
import logging
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from losa_jax.data.features.tap_cache import (
    ShardWriter,
    is_written,
    split_shards,
    write_index,
)
from losa_jax.data.records import Video, Window
from losa_jax.data.video.decode import VideoDecodeError
from losa_jax.data.video.frame_cache import FrameCache
from losa_jax.data.windows import augment
from losa_jax.distributed import processes, sharding
from losa_jax.distributed.stop_signal import Interrupted, StopSignal
from losa_jax.errors import InputError
from losa_jax.jobs.pretrain import ensure_backbone
from losa_jax.jobs.setup import load_data, start_log
from losa_jax.models.backbones.encode_windows import WindowFeatures
from losa_jax.training import build
from losa_jax.training.cached import cache_dtype, cache_facts
from losa_jax.utils.xla_options import compiler_options

logger = logging.getLogger(__name__)

SHARD_BYTES = 64 * 2**20
# Clips encoded at once, on each device.
CLIPS_A_DEVICE = 16


def cache(config: Any, workdir: Path, *, dry_run: bool = False) -> None:
    """The job: writes config.data.cache, both subsets.

    Args:
      dry_run: only print what would be written, and its size.

    Raises:
      InputError: bad input, a folder of something else, a full disk.
      Interrupted: a signal came; whole shards stay.
    """
    settings = config.data
    if not settings.cache:
        raise InputError("--mode=cache needs --config.data.cache=FOLDER")
    if not config.window.align_to_clips:
        raise InputError("--mode=cache needs --config.window.align_to_clips"
                         "=True: else a clip's features depend on where its "
                         "window starts")
    folder = Path(settings.cache)
    config = config.copy_and_resolve_references()
    config.data.cache = ""  # this run reads the videos
    start_log(workdir)
    ensure_backbone(config)
    videos, num_classes = _videos(config, workdir)
    # Each process runs its own shards on its own devices.
    devices = jax.local_devices()
    mesh = sharding.make_mesh((len(devices), 1, 1), devices)
    facts = cache_facts(config)
    # A cache of every patch keeps them as the blocks gave them.
    is_raw = bool(facts["tap_layers"]) and not facts["tap_grid"]
    if is_raw:
        config.adapter.kind = "ladder"  # which reads them so
    model = build.build_model(config, num_classes, mesh)
    name = "raw_taps" if is_raw else "taps"
    dtype = cache_dtype(config)
    views = 1 + config.data.cache_copies
    clip_bytes = views * _clip_bytes(
        model, config.window.clip_frames, config.augment.size, mesh.size,
        dtype)
    sizes = {video.video_id: _num_clips(video, config) * clip_bytes
             for video in videos}
    shards = split_shards(videos, sizes, SHARD_BYTES)
    print(f"{len(videos)} videos, {sum(_num_clips(v, config) for v in videos)}"
          f" clips{f' in {views} views' if views > 1 else ''}: "
          f"{sum(sizes.values()) / 2**30:.2f} GiB of features in "
          f"{len(shards)} shards in {folder}")
    if dry_run:
        return
    with processes.first_goes_first("index"):
        write_index(folder, facts, len(shards))
    mine = [number for number in range(len(shards))
            if number % processes.count() == processes.index()]
    todo = [number for number in mine if not is_written(folder, number)]
    if len(todo) < len(mine):
        print(f"{len(mine) - len(todo)} shards are there already")
    encode = jax.jit(lambda frozen, frames: model.encode(
        frozen, {}, {"frames": frames}, None, None),
        compiler_options=compiler_options(mesh))
    bar = tqdm(total=views * sum(_num_clips(video, config) for number in todo
                                 for video in shards[number]),
               desc="caching features", unit="clip")
    with StopSignal() as stop, bar:
        for number in todo:
            writer = ShardWriter(folder, number)
            try:
                for video in shards[number]:
                    if came := stop.came:
                        processes.ask_to_stop()
                    if came or processes.asked_to_stop():
                        raise Interrupted(
                            f"stopped by {came or 'SIGTERM'}, whole "
                            "shards stay: start the same command again to "
                            "go on")
                    arrays = _encode_views(
                        video, config, name, dtype,
                        lambda clips: _encode(clips, encode, model, mesh, bar))
                    if arrays is not None:
                        writer.add(video, arrays)
                writer.close()
            except OSError as error:
                raise InputError(
                    f"{folder}: cannot be written ({error}): make room and "
                    "start the same command again, it goes on where it "
                    "stopped") from error
            finally:
                writer.abandon()


def _videos(config: Any, workdir: Path) -> tuple[list[Video], int]:
    """The videos of all subsets to cover, and the number of classes."""
    names = tuple(config.data.cache_subsets) or (
        config.data.train_subset, config.data.test_subset)
    videos: dict[str, Video] = {}
    num_classes = 0
    for name in names:
        config.data.test_subset = name
        data = load_data(config, workdir, subsets=("test",))
        num_classes = len(data.class_names)
        videos |= {video.video_id: video for video in data.test}
    return list(videos.values()), num_classes


def _num_clips(video: Video, config: Any) -> int:
    return -(-video.grid.num_samples // config.window.clip_frames)


def _clip_bytes(model: build.Model, clip_frames: int, size: int,
                num_devices: int, dtype: np.dtype) -> int:
    shape = (num_devices, clip_frames, size, size, 3)
    features = jax.eval_shape(
        lambda frozen, frames: model.encode(
            frozen, {}, {"frames": frames}, None, None),
        model.frozen, jax.ShapeDtypeStruct(shape, np.uint8))
    return (features.last.size * features.last.dtype.itemsize
            + features.taps.size * dtype.itemsize) // num_devices


def _encode_views(video: Video, config: Any, name: str,
                  dtype: np.dtype,
                  encode: Callable[[Iterator[np.ndarray]],
                                   tuple[np.ndarray, np.ndarray]]
                  ) -> list[dict[str, np.ndarray]] | None:
    """`last` and taps of every view; None if the video may be skipped."""
    views = []
    try:
        for view in range(1 + config.data.cache_copies):
            last, taps = encode(_clips(video, config, view))
            views.append({"last": last, name: taps.astype(dtype)})
    except VideoDecodeError as error:
        if config.data.on_broken_video != "skip":
            raise
        logger.warning("skipped %s: %s", video.video_id, error)
        return None
    return views


def _encode(clips: Iterator[np.ndarray],
            encode: Callable[[Any, jax.Array], WindowFeatures],
            model: build.Model, mesh: Mesh, bar: tqdm
            ) -> tuple[np.ndarray, np.ndarray]:
    """Of all clips of a video: `last` [n, u, c] and `taps` [k, n, ...]."""
    batch_clips = CLIPS_A_DEVICE * mesh.size
    last, taps = [], []
    for batch in _batches(clips, batch_clips):
        count = len(batch)
        frames = {"frames": np.stack(
            batch + batch[-1:] * (batch_clips - count))}
        put = sharding.put(frames, sharding.batch_shardings(frames, mesh))
        features = jax.device_get(encode(model.frozen, put["frames"]))
        last.append(features.last[:count, 0])
        taps.append(features.taps[:, :count, 0])
        bar.update(count)
    return np.concatenate(last), np.concatenate(taps, 1)


def _clips(video: Video, config: Any, view: int
           ) -> Iterator[np.ndarray]:
    """The video's clips, uint8 [f, size, size, 3].

    View 0 is what testing sees. The others are augmented, each with one draw
    for the whole video, or one a clip (config.augment.per).
    """
    reader = FrameCache(0)
    settings = config.augment
    clip, many = config.window.clip_frames, 8 * config.window.clip_frames
    total = video.grid.num_samples
    for first in range(0, total, many):
        valid = min(many, total - first)
        length = -(-valid // clip) * clip
        window = Window(first, length, valid)
        if view == 0:
            shown = reader.read_window(
                video, window, augment.as_tested(
                    settings.size, settings.test_resize), settings.size)
            yield from np.split(shown, length // clip)
            continue
        frames = reader.read_window(video, window)
        for index, part in enumerate(np.split(frames, length // clip)):
            number = first // clip + index if settings.per == "clip" else 0
            rng = np.random.default_rng(
                [config.seed, zlib.crc32(video.video_id.encode()), view,
                 number])
            yield augment.train_view(part, rng, settings)


def _batches(items: Iterator[np.ndarray], size: int
             ) -> Iterator[list[np.ndarray]]:
    while batch := list(itertools.islice(items, size)):
        yield batch
