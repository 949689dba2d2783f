"""Data sets that the project renders for itself: nothing to download.

*Untrimmed* videos for localization, and *trimmed* clips of single motions for
training a small backbone. One object moves over a textured background among
smaller ones, and classes differ only in how it moves over time (`motion`);
its look (`scene`) comes from another random stream.

Each exists in a hard variant: untrimmed videos whose subsets have nothing in
common but the actions (`hard`), and clips of motions that are no part of them.

A mirrored or reversed video of one class shows another class: no flips in
training.

The synthetic modules stay free of JAX: worker processes import them.
"""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from losa_jax.data.synthetic import hard as hard_videos
from losa_jax.data.synthetic import motion, scene
from losa_jax.errors import InputError
from losa_jax.utils.atomic_write import make_folder, write_text

# Raised whenever the same parameters would give other videos.
VERSION = "synthetic-2"
ANNOTATIONS, CLASSES = "annotations.json", "classes.txt"
_SUBSETS = ("training", "testing", "validation")

class _Set(NamedTuple):
    """How a video of a set is planned and rendered, and its classes."""

    plan: Callable[[np.random.Generator, str], Any]
    render: Callable[[np.random.Generator, Any, int], Iterator[np.ndarray]]
    class_names: tuple[str, ...]


def _one_object(plan: Callable[[np.random.Generator], motion.Plan],
                class_names: tuple[str, ...]) -> _Set:
    def render(look: np.random.Generator, plan: motion.Plan, size: int
               ) -> Iterator[np.ndarray]:
        return scene.render_frames(look, *motion.follow(plan), plan.fps, size)

    return _Set(lambda rng, subset: plan(rng), render, class_names)


# The order of the sets is part of the random streams.
_SETS = {
    "untrimmed": _one_object(motion.plan_untrimmed, motion.ACTION_CLASSES),
    "trimmed": _one_object(motion.plan_trimmed, motion.MOTION_CLASSES),
    "hard_untrimmed": _Set(hard_videos.plan_video, hard_videos.render_frames,
                           motion.ACTION_CLASSES),
    "hard_clips": _Set(lambda rng, subset: hard_videos.plan_clip(rng),
                       hard_videos.render_frames, motion.OTHER_CLASSES),
}
_LOWEST = {"num_training": 0, "num_testing": 0, "num_validation": 0,
           "seed": 0, "size": 32}
_MAX_WORKERS = 8


def render_untrimmed_set(folder: Path, *, num_training: int, num_testing: int,
                         num_validation: int = 0, seed: int = 0,
                         size: int = 64, hard: bool = False) -> Path:
    """Renders videos of 20 to 32 s with 3 to 6 labeled actions each, or hard
    ones with 2 to 8.

    Writes `annotations.json` (ActivityNet layout), `classes.txt` and
    `videos/<id>.mp4`. Videos that exist are kept, so an interrupted call can
    be repeated. Video i of a subset is the same in a set of any size. A script
    that calls this needs `if __name__ == "__main__":`, as worker processes
    import it.

    Args:
      folder: made if missing.
      num_training, num_testing, num_validation: videos of each subset.
      seed: same seed, same set; no two videos share a random stream.
      size: width and height in pixels, even.
      hard: objects, backgrounds, cameras and lengths of actions of a subset
        do not occur in another one (`synthetic.hard`).

    Returns:
      the folder.

    Raises:
      InputError: a parameter is out of range, the folder holds something
        else, or a worker process was killed.
    """
    return _render_set(Path(folder), {
        "kind": "hard_untrimmed" if hard else "untrimmed",
        "num_training": num_training, "num_testing": num_testing,
        "num_validation": num_validation, "seed": seed, "size": size})


def render_trimmed_set(folder: Path, *, num_training: int, num_testing: int,
                       seed: int = 0, size: int = 64, hard: bool = False
                       ) -> Path:
    """Renders clips of 2 to 2.5 s, each with one of `MOTION_CLASSES`, or of
    `OTHER_CLASSES` for a backbone of the hard set.

    As `render_untrimmed_set`; a clip is one action from its first frame to
    its last.
    """
    return _render_set(Path(folder), {
        "kind": "hard_clips" if hard else "trimmed",
        "num_training": num_training,
        "num_testing": num_testing, "num_validation": 0, "seed": seed,
        "size": size})


def _render_set(folder: Path, parameters: dict) -> Path:
    problems = [f"config.synthetic.{name}={parameters[name]}: give {lowest} "
                "or more" for name, lowest in _LOWEST.items()
                if parameters[name] < lowest]
    if parameters["size"] % 2:
        problems.append(f"config.synthetic.size={parameters['size']}: H.264 "
                        "needs an even number")
    if problems:
        raise InputError("; ".join(problems))
    header = {"version": VERSION, "parameters": parameters}
    _refuse_other_content(folder, header)
    make_folder(folder / "videos")
    videos = {
        f"{parameters['kind']}_{subset}_{index:04d}": (subset, index)
        for subset in _SUBSETS for index in range(parameters[f"num_{subset}"])}
    # Before the videos: a repeated call then knows the set's parameters.
    if not (folder / ANNOTATIONS).exists():
        names = _SETS[parameters["kind"]].class_names
        write_text(folder / CLASSES, "".join(f"{name}\n" for name in names))
        write_text(folder / ANNOTATIONS, json.dumps({**header, "database": {
            video_id: _describe(_plan_video(parameters, *video)[0], video[0],
                                names)
            for video_id, video in videos.items()}}, indent=1))

    missing = {path: video for video_id, video in videos.items()
               if not (path := folder / f"videos/{video_id}.mp4").exists()}
    if not missing:
        return folder
    # Forking is unsafe once the caller has loaded JAX.
    with ProcessPoolExecutor(
            min(os.cpu_count() or 1, _MAX_WORKERS),
            mp_context=multiprocessing.get_context("spawn")) as pool:
        tasks = [pool.submit(_render_video, path, parameters, *video)
                 for path, video in missing.items()]
        try:
            for task in tqdm(tasks, f"rendering {parameters['kind']} videos",
                             unit="video"):
                task.result()
        except BrokenProcessPool as error:
            raise InputError(
                f"a rendering process was killed; videos in {folder} are "
                "missing. Start the same command again to continue"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
    return folder


def _render_video(path: Path, parameters: dict, subset: str, index: int
                  ) -> None:
    # The workers occupy all cores already.
    cv2.setNumThreads(1)
    plan, look = _plan_video(parameters, subset, index)
    size = parameters["size"]
    frames = _SETS[parameters["kind"]].render(look, plan, size)
    scene.encode_video(path, frames, plan.fps, size)


def _refuse_other_content(folder: Path, header: dict) -> None:
    """Raises InputError unless the folder is free or holds this very set."""
    content: object = "other files"
    try:
        document = json.loads((folder / ANNOTATIONS).read_text())
        content = {name: document[name] for name in header}
    except FileNotFoundError:
        if not folder.exists() or not any(folder.iterdir()):
            return
    except (ValueError, KeyError, TypeError):
        content = "other annotations"
    if content != header:
        raise InputError(
            f"{folder} holds {content}, but {header} is needed: choose another "
            "--config.synthetic.folder, or delete this one")


def _plan_video(parameters: dict, subset: str, index: int
                ) -> tuple[Any, np.random.Generator]:
    """Returns a video's plan, and the random generator of its looks."""
    kind = parameters["kind"]
    key = (list(_SETS).index(kind), _SUBSETS.index(subset), index)
    course, look = np.random.SeedSequence(
        parameters["seed"], spawn_key=key).spawn(2)
    return (_SETS[kind].plan(np.random.default_rng(course), subset),
            np.random.default_rng(look))


def _describe(plan: Any, subset: str, names: tuple[str, ...]) -> dict:
    """A video's entry in the annotations."""
    return {
        "subset": subset,
        "duration": round(plan.frame_count / plan.fps, 6),
        "fps": float(plan.fps),
        "annotations": [
            {"label": names[index],
             "segment": [round(start, 6), round(end, 6)],
             "label_id": index}
            for index, start, end in plan.actions],
    }
