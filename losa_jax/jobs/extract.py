"""--mode=extract: features of a folder of videos, one .npy file each.

The files are [time, width], the layout that ActionFormer, OpenTAD and our own
config.features read, with a record (data/features/files.py) of how they were
made. Every process takes its share of the videos. The same command again
continues with the missing files.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from losa_jax import timeline
from losa_jax.data import records
from losa_jax.data.features.files import record_path, write_record
from losa_jax.data.video import check
from losa_jax.data.video.folder import (
    VideoFolder,
    video_id_of,
    warn_left_out,
)
from losa_jax.data.windows import batch, sampling, stream
from losa_jax.distributed import processes
from losa_jax.errors import InputError
from losa_jax.inference import extractor
from losa_jax.jobs import encode_videos, setup
from losa_jax.jobs.fit_config import fit_backbone, fit_sizes
from losa_jax.training import fitted_sizes, specs
from losa_jax.training.restore import load_run
from losa_jax.utils.atomic_write import atomic_file, make_folder
from losa_jax.utils.numpy_file import read_array


@dataclasses.dataclass(frozen=True)
class ExtractSettings:
    """The flags of --mode=extract; losa_jax.main explains them."""

    output: Path
    features: str = "clips"  # or "last", "adapted"
    which: str = "best"  # checkpoint of the run
    stride_frames: int = 4
    fps: float = 0.0
    dtype: str = "float32"
    normalization: str = "imagenet"  # or "zero_one"


def extract(config: Any, workdir: Path, settings: ExtractSettings) -> None:
    """Writes features of every video in config.data.videos.

    Raises:
      InputError: bad input, features made otherwise, a full disk.
      Interrupted: a signal came; finished files stay.
    """
    if config.features.folder:
        raise InputError("config.features.folder holds features already: "
                         "--mode=extract makes them from videos")
    setup.check_config(config, keys=("data.videos", "backbone.checkpoint"),
                       reads_features=False, reads_tfds=False)
    if settings.features == "clips" and config.window.clip_overlap:
        raise InputError(
            f"config.window.clip_overlap={config.window.clip_overlap} is of "
            "the clips in a window; --features=clips takes a clip every "
            "--stride_frames: set the overlap to 0, or --features=last")
    notes = setup.notes_folder(workdir, settings.output)
    setup.start_log(notes)
    fit_backbone(config)
    spec, _, _ = specs.configured_backbone(config)  # before videos are read
    if settings.features != "clips":
        fit_sizes(config, workdir, spec)
    elif not config.augment.size:
        config.augment.size = fitted_sizes.frame_size(spec)
    mesh = encode_videos.local_mesh()
    videos, broken = _videos(config, notes, settings)
    if settings.features == "clips":
        model = extractor.clip_extractor(
            config, mesh, stride_frames=settings.stride_frames,
            is_resampled=settings.fps > 0,
            normalization=settings.normalization)
    else:
        model = extractor.token_extractor(
            config, mesh, load_run(workdir, config, mesh, which=settings.which)
            if settings.features == "adapted" else None)

    width = model.spec.width
    facts = {"what": settings.features, "width": width,
             "dtype": settings.dtype, **model.facts}
    facts["pixels"] = {"size": config.augment.size,
                       "resize": config.augment.test_resize,
                       **facts["pixels"]}
    rows = {video.video_id: model.rows_of(video) for video in videos}
    folder, dtype = settings.output, np.dtype(settings.dtype)
    make_folder(folder)
    write = functools.partial(write_record, folder, facts, {
        video.video_id: {**_clock_of(video, facts),
                         "length": rows[video.video_id].length}
        for video in videos}, process_index=jax.process_index())
    write(broken=broken)
    todo = [video for video in videos if not _is_complete(
        folder / f"{video.video_id}.npy",
        (rows[video.video_id].length, width), dtype)]
    num_done, num_videos = map(sum, zip(*processes.gather(
        [len(videos) - len(todo), len(videos)]), strict=True))
    if num_done:
        print(f"{num_done} of {num_videos} videos are there already")
    failed = _run(todo, rows, folder, dtype, model, config)
    if failed:
        broken |= failed
        write(broken=broken)
    processes.barrier("extracted")
    counts, parts = zip(*processes.gather(
        [len(videos) - len(failed), broken]), strict=True)
    _report(sum(counts), {name: reason for part in parts
                          for name, reason in part.items()}, folder, facts)


def _videos(config: Any, workdir: Path, settings: ExtractSettings
            ) -> tuple[list[records.Video], dict[str, str]]:
    """Returns this process's readable videos, and {id: reason} of the rest."""
    folder = Path(config.data.videos)
    paths, left_out = VideoFolder(folder).videos()
    warn_left_out(folder, left_out)
    names = sorted({video_id_of(path) for path in paths})
    if not names:
        raise InputError(
            f"config.data.videos={folder} holds no video: name a folder of "
            "videos")
    infos, broken = setup.probe(
        config, [records.AnnotatedVideo(name, "", None, None, ())
                 for name in names], workdir, None)
    check.report_broken(broken, len(names), config.data.on_broken_video)

    def grid_of(info: records.VideoInfo) -> timeline.SampleGrid:
        if settings.features != "clips":
            return sampling.video_grid(info, config.window)
        return timeline.sample_grid(
            info.fps, info.frame_count, sample_fps=settings.fps,
            sampling="fps" if settings.fps else "stride")

    share = slice(jax.process_index(), None, jax.process_count())
    return ([records.Video(name, info, grid_of(info), ())
             for name, info in [*infos.items()][share]],
            dict([*broken.items()][share]))


def _clock_of(video: records.Video, facts: dict[str, Any]) -> dict[str, Any]:
    """Returns the rate and length of the clock of stride and clip."""
    info = video.info
    if facts["clock"] == "frames of the file":
        return {"fps": info.fps, "frame_count": info.frame_count}
    fps = info.fps / video.grid.frames_per_sample
    return {"fps": fps, "frame_count": round(info.duration_seconds * fps)}


def _run(videos: Sequence[records.Video], rows: Mapping[str, extractor.Rows],
         folder: Path, dtype: np.dtype, model: extractor.Extractor, config: Any
         ) -> dict[str, str]:
    """Encodes and writes videos; returns {video id: reason} of skipped ones.
    """
    def windows_of(number: int, decoder_threads: int
                   ) -> Iterator[tuple[stream.WindowRow, batch.Inputs]]:
        for window, frames in rows[videos[number].video_id].windows(
                decoder_threads):
            yield stream.WindowRow(number, window), {"frames": frames}

    failed: dict[str, str] = {}
    # Several videos are decoded at once, so their windows come mixed.
    begun: dict[int, np.ndarray] = {}
    bar = tqdm(total=sum(rows[video.video_id].length for video in videos),
               desc="extracting", unit="feature", unit_scale=True)
    with bar, contextlib.closing(encode_videos.encode_videos(
            videos, windows_of, model.encode, config,
            batch_windows=model.batch_windows,
            kept="finished files stay")) as items:
        for item in items:
            if isinstance(item, stream.VideoEnd):
                name = videos[item.video_number].video_id
                features = begun.pop(item.video_number, None)
                if item.error is not None:
                    failed[name] = str(item.error)
                elif features is not None:
                    _save(folder / f"{name}.npy", features, dtype)
                continue
            window, output = item
            number = window.video_number
            plan = rows[videos[number].video_id]
            if number not in begun:
                begun[number] = np.empty((plan.length, model.spec.width),
                                         np.float32)
            place, vectors = plan.place(window.window, output)
            begun[number][place] = vectors
            bar.update(np.size(place))
    return failed


def _is_complete(path: Path, shape: tuple[int, int], dtype: np.dtype) -> bool:
    """Whether a file holds features of this shape; false if it was cut."""
    try:
        array = read_array(path)
    except InputError:
        return False
    return array.shape == shape and array.dtype == dtype


def _save(path: Path, rows: np.ndarray, dtype: np.dtype) -> None:
    """Writes a file atomically.

    Raises:
      InputError: numbers that the dtype cannot hold, or a full disk.
    """
    limit = np.finfo(dtype).max
    if not np.all(np.abs(rows) <= limit):
        raise InputError(
            f"{path.stem}: its features are not finite or exceed {limit:.0f}: "
            "set --dtype=float32, or look at the weights and the video")
    with atomic_file(path) as temporary:
        with open(temporary, "wb") as file:
            np.save(file, rows.astype(dtype))


def _report(num_done: int, broken: dict[str, str], folder: Path,
            facts: dict[str, Any]) -> None:
    """Prints the result of all processes.

    Args:
      num_done: videos that have features.
      broken: {video id: reason} of the skipped videos.
    """
    print(f"{num_done} videos, [time, {facts['width']}] {facts['dtype']}, in "
          f"{folder}; how they were made: {record_path(folder)}")
    print("to train on them: python -m losa_jax.main --workdir=FOLDER "
          "--config=configs/thumos_features.py --config.data.annotations=FILE "
          f"--config.features.folder={folder} " + " ".join(
              f"--config.features.{name}={facts[name]}" for name in
              ("stride_frames", "clip_frames", "width")))
    if broken:
        print(f"{len(broken)} videos were skipped "
              "(config.data.on_broken_video=skip):")
        for name, reason in broken.items():
            print(f"  {name}: {reason}")
