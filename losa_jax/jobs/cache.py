"""--mode=cache: the frozen backbone, once over the data set, onto disk.

The backbone never changes, so neither do its features of a clip. Training
and evaluation with the same --config.data.cache then read no video and run
no backbone. Interrupted runs go on with the first shard that is not whole.
"""

import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from losa_jax.data import augment
from losa_jax.data.frame_cache import FrameCache
from losa_jax.data.source import SourceVideo
from losa_jax.data.tap_store import (
    ShardWriter,
    is_written,
    split_shards,
    write_index,
)
from losa_jax.data.video import VideoDecodeError
from losa_jax.data.windows import Window
from losa_jax.errors import InputError
from losa_jax.jobs.pretrain import ensure_backbone
from losa_jax.jobs.setup import load_data, start_log
from losa_jax.jobs.stop import Interrupted, StopSignal
from losa_jax.training import build, sharding
from losa_jax.training.cached import cache_facts

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
    data = load_data(config, workdir)
    mesh = sharding.make_mesh((jax.device_count(), 1, 1))
    model = build.build_model(config, len(data.class_names), mesh)
    facts = cache_facts(config)
    videos = list({video.video_id: video
                   for video in (*data.train, *data.test)}.values())
    clip_bytes = _clip_bytes(model, config.augment.size, mesh.size)
    sizes = {video.video_id: _num_clips(video, config) * clip_bytes
             for video in videos}
    shards = split_shards(videos, sizes, SHARD_BYTES)
    print(f"{len(videos)} videos, {sum(_num_clips(v, config) for v in videos)}"
          f" clips: {sum(sizes.values()) / 2**30:.2f} GiB of features in "
          f"{len(shards)} shards in {folder}")
    if dry_run:
        return
    write_index(folder, facts, len(shards))
    mine = [number for number in range(len(shards))
            if number % jax.process_count() == jax.process_index()]
    todo = [number for number in mine if not is_written(folder, number)]
    if len(todo) < len(mine):
        print(f"{len(mine) - len(todo)} shards are there already")
    encode = jax.jit(lambda frozen, frames: model.encode(
        frozen, {}, {"frames": frames}, None, None))
    bar = tqdm(total=sum(_num_clips(video, config) for number in todo
                         for video in shards[number]),
               desc="caching features", unit="clip")
    with StopSignal() as stop, bar:
        for number in todo:
            writer = ShardWriter(folder, number)
            try:
                for video in shards[number]:
                    if stop.came:
                        raise Interrupted(
                            f"stopped by {stop.came}, whole shards stay: "
                            "start the same command again to go on")
                    arrays = _encode_video(video, config, model, mesh, encode,
                                           bar)
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


def _num_clips(video: SourceVideo, config: Any) -> int:
    return -(-video.grid.num_samples // config.window.clip_frames)


def _clip_bytes(model: build.Model, size: int, num_devices: int) -> int:
    shape = (num_devices, model.spec.clip_frames, size, size, 3)
    features = jax.eval_shape(
        lambda frozen, frames: model.encode(
            frozen, {}, {"frames": frames}, None, None),
        model.frozen, jax.ShapeDtypeStruct(shape, np.uint8))
    return sum(leaf.size * leaf.dtype.itemsize
               for leaf in features) // num_devices


def _encode_video(video: SourceVideo, config: Any, model: build.Model, mesh,
                  encode, bar: tqdm) -> dict[str, np.ndarray] | None:
    """`last` and `taps` of all its clips; None if it may be skipped."""
    batch_clips = CLIPS_A_DEVICE * mesh.size
    last, taps = [], []
    try:
        for clips in _batches(_clips(video, config), batch_clips):
            count = len(clips)
            frames = np.stack(clips + clips[-1:] * (batch_clips - count))
            frames = sharding.put(
                {"frames": frames},
                sharding.batch_shardings({"frames": frames}, mesh))["frames"]
            features = jax.device_get(encode(model.frozen, frames))
            last.append(features.last[:count, 0])
            taps.append(features.taps[:, :count, 0])
            bar.update(count)
    except VideoDecodeError as error:
        if config.data.on_broken_video != "skip":
            raise
        logger.warning("skipped %s: %s", video.video_id, error)
        return None
    return {"last": np.concatenate(last), "taps": np.concatenate(taps, 1)}


def _clips(video: SourceVideo, config: Any) -> Iterator[np.ndarray]:
    """The video's clips as testing sees them, uint8 [f, size, size, 3]."""
    reader = FrameCache(0)
    clip, many = config.window.clip_frames, 8 * config.window.clip_frames
    total = video.grid.num_samples
    for first in range(0, total, many):
        valid = min(many, total - first)
        length = -(-valid // clip) * clip
        frames = augment.test_view(
            reader.read_window(video, Window(first, length, valid)),
            config.augment.size, config.augment.test_resize)
        yield from np.split(frames, length // clip)


def _batches(items: Iterator[np.ndarray], size: int
             ) -> Iterator[Sequence[np.ndarray]]:
    while batch := list(itertools.islice(items, size)):
        yield batch
