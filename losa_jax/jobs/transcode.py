"""--mode=check_data --transcode=DIR: small copies of a set's videos."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from losa_jax.data.records import VideoInfo
from losa_jax.data.video.check import REPORT, check_videos
from losa_jax.data.video.transcode import PARTIAL, transcode_video
from losa_jax.distributed.stop_signal import Interrupted, StopSignal
from losa_jax.errors import InputError
from losa_jax.jobs.setup import blocked_videos, read_annotations, write_json
from losa_jax.utils.run_files import PROBED_FILE

SETTINGS_FILE = "transcode.json"
# Of augment.size: recipes resize to this and crop.
SHORT_SIDE = 8 / 7
MAX_SHOWN = 20


def transcode(config: Any, workdir: Path, folder: Path) -> int:
    """Copies every readable video of both subsets; goes on where it stopped.

    Returns:
      how many were made now.

    Raises:
      InputError: other settings in the folder, or videos that failed; the
        others are done first.
      Interrupted: a signal came; whole copies stay.
    """
    if config.data.tfds or not config.data.videos:
        raise InputError("--transcode copies a folder of videos: set "
                         "--config.data.videos=FOLDER, and no data.tfds "
                         "(build that of the copies)")
    settings = copy_settings(config)
    _claim(folder, Path(config.data.videos), settings)
    infos = _readable(config, workdir)
    todo = {video_id: info for video_id, info in infos.items()
            if not _is_made(folder / f"{video_id}.mp4", info)}
    if len(todo) < len(infos):
        print(f"{len(infos) - len(todo)} of {len(infos)} copies are there "
              "already")
    total = sum(info.frame_count for info in todo.values())
    failed: dict[str, str] = {}
    pool = ThreadPoolExecutor(config.data.num_threads)
    with StopSignal() as stop, tqdm(total=total, desc="copying videos",
                                    unit="frame") as bar:
        def one_more() -> None:
            if stop.came:
                raise Interrupted(
                    f"stopped by {stop.came}, whole copies stay: start the "
                    "same command again to go on")
            bar.update()

        def copy(item: tuple[str, VideoInfo]) -> None:
            video_id, info = item
            try:
                transcode_video(info, folder / f"{video_id}.mp4",
                                on_frame=one_more, **settings)
            except InputError as error:
                failed[video_id] = str(error)

        try:
            for _ in pool.map(copy, todo.items()):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
    if failed:
        lines = [f"  {name}: {failed[name]}"
                 for name in list(failed)[:MAX_SHOWN]]
        raise InputError(f"{len(failed)} of {len(todo)} videos could not be "
                         "copied, the others are:\n" + "\n".join(lines))
    print(f"copies of {len(infos)} videos: train on them with "
          f"--config.data.videos={folder}")
    return len(todo)


def copy_settings(config: Any) -> dict[str, Any]:
    """The section `transcode`, checked, with the short side chosen."""
    settings = config.transcode.to_dict()
    for key, low in (("short_side", 0), ("fps", 0), ("gop", 1),
                     ("quality", 0)):
        if settings[key] < low:
            raise InputError(f"config.transcode.{key}={settings[key]} must "
                             f"be {low} or more")
    settings["short_side"] = settings["short_side"] or (
        int(config.augment.size * SHORT_SIDE) // 2 * 2)
    return settings


def _claim(folder: Path, videos: Path, settings: dict[str, Any]) -> None:
    """Makes the folder, or finds that it was made with these settings."""
    if folder.resolve() == videos.resolve():
        raise InputError(f"--transcode={folder} is the folder of the videos "
                         "themselves: choose another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / SETTINGS_FILE
        if not path.exists():
            write_json(path, settings)
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"--transcode={folder}: cannot be used ({error}): "
                         "choose another folder") from error
    if found != settings:
        raise InputError(f"{folder} holds copies made with {found}, the "
                         f"config asks for {settings}: choose another folder")
    for rest in folder.glob(f"*{PARTIAL}"):  # of a start that was killed
        rest.unlink()


def _readable(config: Any, workdir: Path) -> dict[str, VideoInfo]:
    data = config.data
    annotations = read_annotations(config, None)
    blocked = blocked_videos(data.block_list)
    chosen = [video for subset in dict.fromkeys(
        (data.train_subset, data.test_subset))
        for video in annotations.subset(subset)
        if video.video_id not in blocked]
    infos, _ = check_videos(
        chosen, Path(data.videos), on_broken_video=REPORT, check=data.check,
        cache_path=workdir / PROBED_FILE,
        num_threads=data.num_threads)
    return infos


def _is_made(target: Path, info: VideoInfo) -> bool:
    """Whether the copy is there, and not older than its source."""
    return target.exists() and (
        target.stat().st_mtime_ns >= Path(info.path).stat().st_mtime_ns)
