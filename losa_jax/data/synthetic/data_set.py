"""Two data sets the project renders for itself: nothing to download.

*Untrimmed* videos for localization, and *trimmed* clips of single motions for
pre-training a small backbone. In both, one object moves over a textured
background among smaller ones, and classes differ only in how it moves over
time (`motion`); what it looks like (`scene`) is drawn
from another random stream.

Mirroring a picture, or playing it backwards, turns one class into another:
never flip in training.

The synthetic modules stay free of JAX: worker processes import them.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from losa_jax.data.synthetic.motion import (
    ACTION_CLASSES,
    MOTION_CLASSES,
    Plan,
    follow,
    plan_trimmed,
    plan_untrimmed,
)
from losa_jax.data.synthetic.scene import encode_video, render_frames
from losa_jax.errors import InputError

# Raised whenever the same parameters would give other videos.
VERSION = "synthetic-2"
ANNOTATIONS = "annotations.json"
CLASSES = "classes.txt"
# Holds the parameters of a set that is being rendered, so that a later run
# does not finish it with other ones. Gone once the annotations are there.
_UNFINISHED = "unfinished.json"
_SUBSETS = ("training", "testing", "validation")
_PLANS = {"untrimmed": plan_untrimmed, "trimmed": plan_trimmed}
_CLASSES = {"untrimmed": ACTION_CLASSES, "trimmed": MOTION_CLASSES}
_MOST_WORKERS = 8


def render_untrimmed_set(
    folder: Path,
    *,
    num_training: int = 60,
    num_testing: int = 30,
    num_validation: int = 0,
    seed: int = 0,
    size: int = 64,
    progress: bool = True,
) -> Path:
    """Renders videos of 20 to 32 s with 3 to 6 labelled actions each.

    Writes `videos/<id>.mp4`, `classes.txt` and, last, `annotations.json`
    (ActivityNet layout). A folder that holds this very set is left as it is;
    one that was begun is finished. Video i of a subset is the same whatever
    the number of videos.

    Args:
      folder: where to write; made if missing.
      num_training: number of videos of the subset "training".
      num_testing: number of videos of the subset "testing".
      num_validation: number of videos of the subset "validation", for
        choosing settings.
      seed: same seed, same set. No two videos share a random stream.
      size: width and height in pixels, even, at least 32.
      progress: show a progress bar.

    Returns:
      The folder.

    Raises:
      InputError: a parameter is out of range, or the folder holds
        something else.
    """
    return _render_set(Path(folder), {
        "kind": "untrimmed", "num_training": num_training,
        "num_testing": num_testing, "num_validation": num_validation,
        "seed": seed, "size": size}, progress)


def render_trimmed_set(
    folder: Path,
    *,
    num_training: int = 1500,
    num_testing: int = 200,
    num_validation: int = 0,
    seed: int = 0,
    size: int = 64,
    progress: bool = True,
) -> Path:
    """Renders clips of 2 to 2.5 s with one of `MOTION_CLASSES` each.

    Files, arguments, result and errors as in `render_untrimmed_set`; each
    clip has one action, from its first frame to its last.
    """
    return _render_set(Path(folder), {
        "kind": "trimmed", "num_training": num_training,
        "num_testing": num_testing, "num_validation": num_validation,
        "seed": seed, "size": size}, progress)


def render_share(
    folder: str, parameters_json: str, first: str, step: str
) -> None:
    """Renders every `step`-th video, if missing; a worker process calls it.

    Args:
      folder: the set's folder; its subfolder `videos` exists.
      parameters_json: the parameters of the set.
      first: index of the worker.
      step: number of workers.
    """
    # The workers fill the cores already.
    cv2.setNumThreads(1)
    parameters = json.loads(parameters_json)
    videos = _list_videos(parameters)[int(first)::int(step)]
    for video_id, subset, index in videos:
        path = _video_path(Path(folder), video_id)
        if path.exists():
            continue
        plan, look = _plan_video(parameters, subset, index)
        size = parameters["size"]
        frames = render_frames(look, *follow(plan), plan.fps, size)
        encode_video(path, frames, plan.fps, size)


def _render_set(folder: Path, parameters: dict, progress: bool) -> Path:
    _check_parameters(parameters)
    _check_folder(folder, parameters)
    videos = _list_videos(parameters)
    paths = [_video_path(folder, video_id) for video_id, _, _ in videos]
    if (folder / ANNOTATIONS).exists() and all(p.exists() for p in paths):
        return folder
    header = {"version": VERSION, "parameters": parameters}
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    _write(folder / _UNFINISHED, json.dumps(header))
    _run_workers(folder, parameters, paths, progress)

    names = _CLASSES[parameters["kind"]]
    _write(folder / CLASSES, "".join(f"{name}\n" for name in names))
    database = {}
    for video_id, subset, index in videos:
        plan, _ = _plan_video(parameters, subset, index)
        database[video_id] = _describe(plan, subset, names)
    _write(folder / ANNOTATIONS,
           json.dumps({**header, "database": database}, indent=1))
    (folder / _UNFINISHED).unlink(missing_ok=True)
    return folder


def _run_workers(
    folder: Path, parameters: dict, paths: list[Path], progress: bool
) -> None:
    """Renders the missing ones of `paths` in several processes.

    Plain subprocesses, not `multiprocessing`: the caller has JAX loaded, so
    forking is unsafe, and spawning would import the caller's main module,
    and with it JAX, once in every worker.
    """
    missing = {path for path in paths if not path.exists()}
    num_workers = min(os.cpu_count() or 1, _MOST_WORKERS, len(missing))
    code = ("import sys; "
            "from losa_jax.data.synthetic.data_set import render_share; "
            "render_share(*sys.argv[1:])")
    root = Path(__file__).parents[3]
    bar = tqdm(total=len(paths), initial=len(paths) - len(missing),
               desc=f"rendering {parameters['kind']} videos", unit="video",
               disable=not progress)
    workers = []
    try:
        for worker_index in range(num_workers):
            workers.append(subprocess.Popen(
                [sys.executable, "-c", code, str(folder.resolve()),
                 json.dumps(parameters), str(worker_index),
                 str(num_workers)],
                cwd=root))
        statuses: list[int | None] = [None]
        # One worker that failed is reason to stop the others: they would
        # only hide its message.
        while None in statuses and not any(statuses):
            time.sleep(0.1)
            statuses = [worker.poll() for worker in workers]
            done = {path for path in missing if path.exists()}
            missing -= done
            bar.update(len(done))
    finally:
        bar.close()
        for worker in workers:
            worker.terminate()
            worker.wait()
    if missing:
        raise InputError(
            f"a rendering process failed (its own message is above); "
            f"{len(missing)} videos are missing in {folder}. Start the same "
            "command again to go on where it stopped")


def _check_parameters(parameters: dict) -> None:
    problems = []
    for name, lowest in (("num_training", 0), ("num_testing", 0),
                         ("num_validation", 0), ("seed", 0), ("size", 32)):
        if parameters[name] < lowest:
            problems.append(f"{name}={parameters[name]}: give {lowest} or "
                            "more")
    if parameters["size"] % 2:
        problems.append(f"size={parameters['size']}: H.264 needs an even "
                        "number")
    if problems:
        raise InputError("; ".join(
            f"config.synthetic.{problem}" for problem in problems))


def _check_folder(folder: Path, parameters: dict) -> None:
    """Raises InputError unless the folder is free or holds this very set."""
    wanted = {"version": VERSION, "parameters": parameters}
    found = [path for name in (ANNOTATIONS, _UNFINISHED)
             if (path := folder / name).exists()]
    for path in found:
        try:
            document = json.loads(path.read_text())
            held: object = {
                "version": document["version"],
                # Sets rendered before there was such a subset.
                "parameters": {"num_validation": 0, **document["parameters"]}}
        except (ValueError, KeyError, TypeError, AttributeError):
            held = "a file of another kind"
        if held != wanted:
            raise InputError(
                f"{path} holds {held}, asked for {wanted}: delete the folder "
                "or choose another --config.synthetic.folder")
    if not found and folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"{folder} is not empty and holds no synthetic set: choose "
            "another --config.synthetic.folder")


def _list_videos(parameters: dict) -> list[tuple[str, str, int]]:
    """(video id, subset, index in the subset) of every video of a set."""
    return [
        (f"{parameters['kind']}_{subset}_{index:04d}", subset, index)
        for subset in _SUBSETS
        for index in range(parameters[f"num_{subset}"])
    ]


def _video_path(folder: Path, video_id: str) -> Path:
    return folder / "videos" / f"{video_id}.mp4"


def _plan_video(
    parameters: dict, subset: str, index: int
) -> tuple[Plan, np.random.Generator]:
    """What happens in a video, and the random stream of how it looks."""
    kind = parameters["kind"]
    key = (list(_PLANS).index(kind), _SUBSETS.index(subset), index)
    motion, look = np.random.SeedSequence(
        parameters["seed"], spawn_key=key).spawn(2)
    plan = _PLANS[kind](np.random.default_rng(motion))
    return plan, np.random.default_rng(look)


def _describe(plan: Plan, subset: str, names: tuple[str, ...]) -> dict:
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


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    temporary.write_text(text)
    os.replace(temporary, path)
