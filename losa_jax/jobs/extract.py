"""--mode=extract: features of a folder of videos, one .npy file each.

In the layout that ActionFormer, OpenTAD and our own config.features read,
[time, width], with a record (data/features/record.py) of how they were made.
Every process takes its share of the videos and spreads clips or windows over
its devices. A file has its name only when it is whole; the same command again
goes on with those that are missing.
"""

import collections
import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from losa_jax import timeline
from losa_jax.data.features.record import record_path, write_record
from losa_jax.data.records import AnnotatedVideo, BrokenVideo, Video, Window
from losa_jax.data.video.check import (
    EXTENSIONS,
    REPORT,
    check_videos,
    report_broken,
    video_ids,
)
from losa_jax.data.windows.batch import Inputs
from losa_jax.data.windows.readers import FrameReader
from losa_jax.data.windows.sampling import (
    num_clips,
    test_windows,
    token_windows,
    video_grid,
    window_step,
)
from losa_jax.data.windows.stream import (
    VideoEnd,
    WindowRow,
    WindowStream,
    sliding_windows,
)
from losa_jax.distributed import processes, sharding
from losa_jax.distributed.stop_signal import StopSignal
from losa_jax.errors import InputError
from losa_jax.inference.extractor import (
    Extractor,
    clip_extractor,
    token_extractor,
)
from losa_jax.inference.load import load_run
from losa_jax.inference.run_windows import run_windows
from losa_jax.jobs.setup import require_backbone, start_log
from losa_jax.utils.run_files import PROBED_FILE

logger = logging.getLogger(__name__)

WHAT = ("clips", "last", "adapted")
DTYPES = {"float32": np.float32, "float16": np.float16}
# Clips encoded at once on each device where backbone.chunk_clips is 0.
CLIPS_A_DEVICE = 16


def extract(config: Any, workdir: Path) -> None:
    """The job: writes config.extract.folder.

    Raises:
      InputError: bad input, features made otherwise, a full disk.
      Interrupted: a signal came; whole files stay.
    """
    settings = config.extract
    _check(config)
    config = config.copy_and_resolve_references()
    config.data.cache = ""  # this run reads the videos
    folder = Path(settings.folder)
    start_log(workdir)
    require_backbone(config)
    # Each process runs its own videos on its own devices.
    devices = jax.local_devices()
    mesh = sharding.make_mesh((len(devices), 1, 1), devices)
    videos, broken = _videos(config, workdir)
    source, rows_of, batch_windows, clock = (
        _clips(config, mesh) if settings.what == "clips"
        else _tokens(config, workdir, mesh))

    facts = {"what": settings.what, "width": source.width,
             "dtype": settings.dtype, **clock, **source.facts}
    facts["pixels"] = {"size": config.augment.size,
                       "resize": config.augment.test_resize,
                       **facts["pixels"]}
    rows = {video.video_id: rows_of(video) for video in videos}
    folder.mkdir(parents=True, exist_ok=True)
    write = functools.partial(write_record, folder, facts, {
        video.video_id: {**_clock_of(video, facts),
                         "length": rows[video.video_id].length}
        for video in videos}, process_index=jax.process_index())
    write(broken=broken)
    dtype = DTYPES[settings.dtype]
    todo = [video for video in videos if not _is_whole(
        folder / f"{video.video_id}.npy",
        (rows[video.video_id].length, source.width), dtype)]
    there, count = map(sum, zip(*processes.gather(
        [len(videos) - len(todo), len(videos)]), strict=True))
    if there:
        print(f"{there} of {count} videos are there already")
    failed = _run(todo, rows, folder, source, batch_windows, config)
    if failed:
        broken |= failed
        write(broken=broken)
    processes.barrier("extracted")
    names = [video.video_id for video in videos]
    parts = processes.gather([names, broken])
    _report([name for part, _ in parts for name in part],
            {name: part[name] for _, part in parts for name in part},
            folder, facts)


def _check(config: Any) -> None:
    """Refuses settings that no features can be made with."""
    settings = config.extract
    if not settings.folder:
        raise InputError("--mode=extract needs --config.extract.folder="
                         "FOLDER, for the files")
    if not config.data.videos:
        raise InputError("config.data.videos is empty: set "
                         "--config.data.videos=FOLDER")
    if config.features.folder:
        raise InputError("config.features.folder holds features already: "
                         "--mode=extract makes them of videos")
    for key, known in (("what", WHAT), ("dtype", tuple(DTYPES))):
        if settings[key] not in known:
            raise InputError(f"config.extract.{key}={settings[key]!r}: "
                             f"choose one of {', '.join(known)}")
    if config.data.on_broken_video not in ("stop", "skip"):
        raise InputError(f"config.data.on_broken_video="
                         f"{config.data.on_broken_video!r}: choose stop or "
                         "skip")
    if settings.stride_frames < 1:
        raise InputError(f"config.extract.stride_frames="
                         f"{settings.stride_frames}: give 1 or more")


def _videos(config: Any, workdir: Path
            ) -> tuple[list[Video], dict[str, str]]:
    """This process's videos of the folder, and those left out."""
    folder = Path(config.data.videos)
    names = video_ids(folder)
    if not names:
        raise InputError(f"config.data.videos={folder}: no videos in it: "
                         f"name a folder of {', '.join(EXTENSIONS)} files")
    mine = names[jax.process_index()::jax.process_count()]
    annotated = [AnnotatedVideo(name, "", None, None, ()) for name in mine]
    infos, lost = check_videos(
        annotated, folder, on_broken_video=REPORT,
        check=config.data.check, cache_path=workdir / PROBED_FILE,
        num_threads=config.data.num_threads)
    # Those of all processes in one message; if it stops the first process,
    # the others end with it.
    processes.barrier("probed")
    every = [BrokenVideo(name, folder / name, reason)
             for part in processes.gather(
                 [(video.video_id, video.reason) for video in lost])
             for name, reason in part]
    if processes.is_first():
        report_broken(every, len(names), config.data.on_broken_video,
                      len(every) < len(names))
    processes.barrier("reported")
    settings = config.extract
    videos = []
    for name, info in infos.items():
        if settings.what == "clips":
            sampling = "fps" if settings.fps else "stride"
            grid = timeline.sample_grid(info.fps, info.frame_count,
                                        sampling=sampling,
                                        sample_fps=settings.fps)
        else:
            grid = video_grid(info, config.window)
        videos.append(Video(name, info, grid, ()))
    return videos, {video.video_id: video.reason for video in lost}


class Rows(NamedTuple):
    """How the vectors of a video come about.

    Attributes:
      length: number of vectors.
      windows: yields the windows and frames of a video.
      place: (window, its output) to (rows of the video, their vectors).
    """

    length: int
    windows: Callable[[int], Iterator[tuple[Window, np.ndarray]]]
    place: Callable[[Window, np.ndarray], tuple[Any, np.ndarray]]


# A video to its rows.
RowsOf = Callable[[Video], Rows]


def _clips(config: Any, mesh: Mesh
           ) -> tuple[Extractor, RowsOf, int, dict[str, Any]]:
    """A vector a clip: encoder, rows of a video, clips at once, clock."""
    settings, reader = config.extract, FrameReader(config)
    source = clip_extractor(config, mesh)
    clip, stride = source.spec.clip_frames, settings.stride_frames

    def rows_of(video):
        return Rows(
            num_clips(video.grid.num_samples, clip, stride),
            functools.partial(reader.clips, video, clip, stride),
            lambda window, vector: (window.first_sample // stride, vector))

    a_device = config.backbone.chunk_clips or CLIPS_A_DEVICE
    return source, rows_of, a_device * mesh.size, {
        "stride_frames": stride, "clip_frames": clip,
        "clock": "resampled" if settings.fps else "frames of the file"}


def _tokens(config: Any, workdir: Path, mesh: Mesh
            ) -> tuple[Extractor, RowsOf, int, dict[str, Any]]:
    """A vector a token of the windows of a run; as `_clips`."""
    run = (load_run(workdir, config, mesh, which=config.evaluate.checkpoint)
           if config.extract.what == "adapted" else None)
    source = token_extractor(config, mesh, run)
    tubelet, settings = source.spec.tubelet, config.window
    # Clips at the same places in all windows: tokens then share one grid.
    align = settings.clip_samples
    reader = FrameReader(config)

    def rows_of(video):
        places = test_windows(video.grid, settings.samples, settings.overlap,
                              align=align)
        number_of = {window.first_sample: number
                     for number, window in enumerate(places)}
        owner = token_windows(places, video.grid.num_samples, tubelet)

        def windows(decoder_threads):
            return sliding_windows(
                reader.test_samples(video, decoder_threads), settings.samples,
                window_step(settings.samples, settings.overlap, align), align)

        def place(window, vectors):
            rows = np.flatnonzero(owner == number_of[window.first_sample])
            return rows, vectors[rows - window.first_sample // tubelet]

        return Rows(len(owner), windows, place)

    # Under a fixed stride samples are frames of the file; else they are a
    # clock of their own, and a token lasts `tubelet` of its ticks.
    by_stride = settings.sampling == "stride"
    stride = tubelet * (settings.frame_stride if by_stride else 1)
    batch = -(-config.evaluate.batch_windows // mesh.size) * mesh.size
    return source, rows_of, batch, {
        "stride_frames": stride, "clip_frames": stride,
        "clock": "frames of the file" if by_stride else "samples"}


def _clock_of(video: Video, facts: dict[str, Any]) -> dict[str, Any]:
    """Ticks a second of the clock in which stride and clip are counted."""
    info = video.info
    if facts["clock"] == "frames of the file":
        return {"fps": info.fps, "frame_count": info.frame_count}
    fps = info.fps / video.grid.frames_per_sample
    return {"fps": fps, "frame_count": round(info.duration_seconds * fps)}


def _run(videos: Sequence[Video], rows: Mapping[str, Rows], folder: Path,
         source: Extractor, batch_windows: int, config: Any
         ) -> dict[str, str]:
    """Encodes and writes; returns what was skipped and why."""
    failed: dict[str, str] = {}
    bar = tqdm(total=sum(video.info.frame_count for video in videos),
               desc="extracting", unit="frame", unit_scale=True)
    # Several videos are decoded side by side, so their windows come mixed.
    begun: dict[int, np.ndarray] = {}
    counted: collections.Counter[int] = collections.Counter()
    bar_of: dict[int, int] = {}

    def windows_of(number: int, decoder_threads: int
                   ) -> Iterator[tuple[WindowRow, Inputs]]:
        for window, frames in rows[videos[number].video_id].windows(
                decoder_threads):
            yield WindowRow(number, window), {"frames": frames}

    stream = WindowStream(
        range(len(videos)), windows_of, batch_windows=batch_windows,
        num_threads=config.data.num_threads, queue_windows=2 * batch_windows)
    with StopSignal() as stop, bar, contextlib.closing(
            iter(stream)) as batches:
        for item in run_windows(source.encode, batches):
            stop.raise_if_asked("whole files stay")
            number = (item if isinstance(item, VideoEnd)
                      else item[0]).video_number
            name = videos[number].video_id
            frames = videos[number].info.frame_count
            if not isinstance(item, VideoEnd):
                video = rows[name]
                if number not in begun:
                    begun[number] = np.empty((video.length, source.width),
                                             np.float32)
                place, vectors = video.place(item[0].window, item[1])
                begun[number][place] = vectors
                counted[number] += np.size(place)
                frames = frames * counted[number] // video.length
            elif item.error is None:
                _save(folder / f"{name}.npy", begun.pop(number),
                      DTYPES[config.extract.dtype])
            elif config.data.on_broken_video != "skip":
                raise item.error
            else:
                logger.warning("skipped %s: %s", name, item.error)
                failed[name] = str(item.error)
                begun.pop(number, None)
            bar.update(frames - bar_of.get(number, 0))
            bar_of[number] = frames
    return failed


def _is_whole(path: Path, shape: tuple[int, int], dtype: Any) -> bool:
    """Whether features are there; not so a file that was cut off."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return array.shape == shape and array.dtype == dtype


def _save(path: Path, rows: np.ndarray, dtype: Any) -> None:
    """Whole or not at all.

    Raises:
      InputError: numbers that the dtype cannot hold, or a full disk.
    """
    limit = np.finfo(dtype).max
    if not np.all(np.abs(rows) <= limit):
        raise InputError(
            f"{path.stem}: features that are not finite or beyond "
            f"{limit:.0f}: set --config.extract.dtype=float32, or look at "
            "the weights and the video")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            np.save(file, rows.astype(dtype))
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error}): make room and start the "
            "same command again, it goes on where it stopped") from error
    finally:
        temporary.unlink(missing_ok=True)


def _report(names: Sequence[str], broken: dict[str, str],
            folder: Path, facts: dict[str, Any]) -> None:
    """What all processes did.

    Args:
      names: of the videos that were begun.
      broken: reason of each that was left out.
    """
    done = sum(name not in broken for name in names)
    print(f"{done} videos, [time, {facts['width']}] {facts['dtype']}, in "
          f"{folder}; how they were made: {record_path(folder)}")
    print("to train on them: --config=configs/thumos_features.py "
          f"--config.features.folder={folder} " + " ".join(
              f"--config.features.{name}={facts[name]}" for name in
              ("stride_frames", "clip_frames", "width")))
    if broken:
        print(f"{len(broken)} videos were skipped "
              "(config.data.on_broken_video=skip):")
        for name, reason in broken.items():
            print(f"  {name}: {reason}")
