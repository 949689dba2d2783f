"""--mode=cache: writes the frozen backbone's features of a data set to disk.

Training and evaluation with the same --config.data.cache then read no video
and run no backbone. Videos that are there already are not encoded again; so an
interrupted run continues, and videos can be added. Training and evaluation
add what is missing by themselves.
"""

import collections
import contextlib
import functools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from einops import rearrange
from jax.sharding import Mesh
from tqdm import tqdm

from losa_jax.data.features import tap_cache
from losa_jax.data.records import Video
from losa_jax.data.windows import augment, batch, readers, sampling, stream
from losa_jax.distributed import processes
from losa_jax.errors import InputError
from losa_jax.inference.extractor import on_mesh
from losa_jax.jobs import encode_videos, setup
from losa_jax.jobs.fit_config import fit_config
from losa_jax.training import feature_store, specs
from losa_jax.training.encoder import encoder_inputs, frozen_encoder

SHARD_BYTES = 64 * 2**20
# Clips encoded at once, on each device.
CLIPS_A_DEVICE = 16

# `last` and the taps of a clip, or of one view of a video.
Features = dict[str, np.ndarray]


def cache(config: Any, workdir: Path, *, dry_run: bool = False) -> None:
    """Writes config.data.cache for both subsets, or for data.cache_subsets.

    Args:
      dry_run: only print what would be written, and its size.

    Raises:
      InputError: bad input, a folder of other content, a full disk.
      Interrupted: a signal came; finished shards stay.
    """
    if not config.data.cache:
        raise InputError("--mode=cache needs --config.data.cache=FOLDER")
    if not config.window.align_to_clips:
        raise InputError("--mode=cache needs --config.window.align_to_clips"
                         "=True: otherwise a clip's features depend on the "
                         "start of its window")
    setup.check_config(config, reads_features=False)
    setup.start_log(workdir)
    fit_config(config, workdir)
    facts = feature_store.cache_facts(config)
    videos = setup.load_videos(config, workdir, [
        ("cache_subsets", name) for name in config.data.cache_subsets] or [
        (key, config.data[key]) for key in ("train_subset", "test_subset")])
    _add(config, facts, videos, dry_run=dry_run)
    if not dry_run:
        print(f"{len(videos)} videos are in {config.data.cache}; to train on "
              "them: the same command without --mode=cache")


def open_store(config: Any, workdir: Path
               ) -> tuple[readers.FeatureStore | None, setup.Fill | None]:
    """Opens the features that a run reads in place of videos, if any.

    Returns:
      them; and what adds missing videos to cached features, None where there
      are none or no videos to add.

    Raises:
      InputError: the features do not fit, or there are neither features nor
        videos.
    """
    data = config.data
    if not data.cache or config.features.folder or (
            not config.window.align_to_clips) or not (
            data.videos or data.tfds):
        return feature_store.open_store(config), None
    with processes.first_goes_first("index"):
        if not tap_cache.stored_facts(data.cache):
            tap_cache.write_index(Path(data.cache),
                                  feature_store.cache_facts(config))
    store = feature_store.open_store(config)
    assert isinstance(store, tap_cache.TapCache)

    def fill(subsets: Sequence[str], names: Sequence[str]) -> None:
        # All processes have looked before one of them writes.
        missing = processes.gather(
            [name for name in names if name not in store])[0]
        if missing:
            as_stored = feature_store.as_stored(config)
            _add(as_stored, feature_store.cache_facts(as_stored),
                 setup.load_videos(config, workdir, [
                     ("cache_subsets", name) for name in subsets], missing))
            store.reload()

    return store, fill


def _add(config: Any, facts: Mapping[str, Any], videos: Sequence[Video], *,
         dry_run: bool = False) -> None:
    """Encodes those of the videos that the folder lacks, or that it has of
    another file."""
    folder = Path(config.data.cache)
    if not dry_run or tap_cache.stored_facts(folder):
        with processes.first_goes_first("index"):
            tap_cache.write_index(folder, facts)
    entries = tap_cache.read_entries(folder)
    # A shard is removed as a whole.
    changed = {entries[video.video_id][0] for video in videos
               if video.video_id in entries
               and not tap_cache.is_of(entries[video.video_id][1], video.info)}
    missing = [video for video in videos if video.video_id not in entries
               or entries[video.video_id][0] in changed]
    if len(missing) < len(videos):
        print(f"{len(videos) - len(missing)} of {len(videos)} videos are in "
              f"{folder} already")
    if not missing:
        return
    mesh = encode_videos.local_mesh()
    encode, clip_bytes = _make_encoder(config, facts, mesh)
    views = 1 + config.data.cache_copies
    # Clips of all views.
    clips = {video.video_id: views * tap_cache.count_clips(
                 video.grid.num_samples, config.window.clip_samples,
                 sampling.clip_step(config.window)) for video in missing}
    total = sum(clips.values())
    shards = tap_cache.split_shards(
        missing, [clips[video.video_id] * clip_bytes for video in missing],
        SHARD_BYTES)
    print(f"{len(missing)} videos, {total // views} clips"
          f"{f' x {views} views' if views > 1 else ''}: "
          f"{total * clip_bytes / 2**30:.2f} GiB of features "
          f"for {len(shards)} shards in {folder}")
    if dry_run:
        return
    # All processes have read the folder before one of them changes it.
    processes.barrier("planned")
    if processes.is_first():
        for name in changed:
            tap_cache.remove_shard(folder, name)
    todo = shards[processes.index()::processes.count()]
    bar = tqdm(total=sum(clips[video.video_id] for shard in todo
                         for video in shard),
               desc="caching features", unit="clip")
    with bar:
        _write_shards(todo, folder, config, encode,
                      CLIPS_A_DEVICE * mesh.size, bar)
    processes.barrier("cached")


def _make_encoder(config: Any, facts: Mapping[str, Any], mesh: Mesh
                  ) -> tuple[Callable[[batch.Inputs], Any], int]:
    """Returns the encoder of windows of one clip, and the bytes of a clip.

    The encoder gives `last` [b, u, c] and taps [b, k, u, h, w, c].
    """
    spec, flat, _ = specs.configured_backbone(config)
    specs.check_window(config, spec)
    # A cache of every patch keeps the blocks' outputs unchanged.
    is_raw = bool(facts["tap_layers"]) and not facts["tap_grid"]
    encoder = frozen_encoder(config, spec, flat, tuple(facts["tap_layers"]),
                             mesh, raw_taps=True if is_raw else None,
                             has_single_clips=True)
    dtype = feature_store.cache_dtype(config)

    def encode(frozen, inputs):
        features = encoder.encode(frozen, {}, encoder_inputs(inputs), None,
                                  None)
        taps = rearrange(features.taps, "k b 1 u h w c -> b k u h w c")
        return {"last": features.last[:, 0],
                "raw_taps" if is_raw else "taps": taps.astype(dtype)}

    size = config.augment.size
    features = jax.eval_shape(encode, encoder.frozen, {
        "frames": jax.ShapeDtypeStruct(
            (mesh.size, config.window.clip_samples, size, size, 3), np.uint8)})
    return on_mesh(encode, mesh, encoder.frozen), sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in features.values()) // mesh.size


def _write_shards(todo: Sequence[Sequence[Video]], folder: Path,
                  config: Any, encode: Callable[[batch.Inputs], Any],
                  batch_clips: int, bar: tqdm) -> None:
    """Encodes all videos in one stream and writes each shard at its end.

    One video is read at a time, because all its features are in memory. So
    the videos end in their order.
    """
    videos = [video for shard in todo for video in shard]
    shard_of = {shard[-1].video_id: shard for shard in todo}
    clips: dict[int, dict[int, list[Features]]] = collections.defaultdict(
        lambda: collections.defaultdict(list))
    done: dict[str, list[Features]] = {}
    with contextlib.closing(encode_videos.encode_videos(
            videos, functools.partial(_clips, videos, config), encode, config,
            batch_windows=batch_clips, kept="finished shards stay",
            num_readers=1)) as items:
        for item in items:
            if not isinstance(item, stream.VideoEnd):
                row, features = item
                # Copied: a view would hold its batch in memory.
                clips[row.video_number][row.view].append(
                    jax.tree.map(np.array, features))
                bar.update()
                continue
            name = videos[item.video_number].video_id
            views = clips.pop(item.video_number, {})
            if item.error is None:
                done[name] = [_joined(views[view]) for view in sorted(views)]
            if name in shard_of:
                shard = shard_of[name]
                tap_cache.write_shard(folder, tap_cache.shard_name(shard), (
                    (video, done.pop(video.video_id)) for video in shard
                    if video.video_id in done))


def _joined(parts: Sequence[Features]) -> Features:
    """Stacks clips to `last` [n, u, c] and taps [k, n, u, h, w, c]."""
    return {name: np.stack([part[name] for part in parts],
                           axis=0 if name == "last" else 1)
            for name in parts[0]}


def _clips(videos: Sequence[Video], config: Any, number: int,
           decoder_threads: int
           ) -> Iterator[tuple[stream.WindowRow, batch.Inputs]]:
    """Yields the clips of all views of a video, each as a window of its own.

    View 0 is what testing sees. The others are augmented, with random values
    drawn once per video, or once per clip (config.augment.per).
    """
    reader, video = readers.FrameReader(config), videos[number]
    settings, clip = config.augment, config.window.clip_samples
    step = sampling.clip_step(config.window)
    for view in range(1 + config.data.cache_copies):
        samples = (reader.full_samples if view else reader.test_samples)(
            video, decoder_threads)
        for window, frames in stream.sliding_windows(samples, clip, step, step):
            if view:
                draw = (window.first_sample // clip
                        if settings.per == "clip" else 0)
                rng = np.random.default_rng(
                    [config.seed, zlib.crc32(video.video_id.encode()), view,
                     draw])
                frames = augment.train_view(frames, rng, settings)
            yield stream.WindowRow(number, window, view), {"frames": frames}
