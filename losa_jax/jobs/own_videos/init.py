"""Writes a recipe for the videos and annotations of a folder."""

import os
import shlex
from pathlib import Path

from losa_jax.data.annotations.load import load_annotations
from losa_jax.data.annotations.tools.content import Options
from losa_jax.data.annotations.tools.read import NoAnnotationsError, Reading
from losa_jax.data.reviews import REVIEWS_FOLDER
from losa_jax.data.video.folder import videos_below
from losa_jax.errors import InputError, counted
from losa_jax.jobs.convert import convert
from losa_jax.jobs.own_videos.annotations import convert_annotations
from losa_jax.utils.atomic_write import write_text
from losa_jax.utils.text_files import read_json, read_text
from losa_jax.weights import backbone_folder, checkpoint_file

RECIPE_FILE, ANNOTATIONS_FILE = "recipe.py", "annotations.json"
# Marks the annotations that this module wrote, and may write again.
_VERSION = "losa_jax.init"
# What the commands in the recipe's head write into the folder.
RUN, PREDICTIONS = "run", "predictions"
FEATURES, BACKBONE = "features", "backbone"

_RECIPE = '''"""Detects the actions in the videos of {title}.

Train, and train again after a review:
    {train}
Predict:
    {predict}
Correct the detections in a browser:
    {review}
More annotations in this folder, or more videos with them:
    {init}

Hardware, time and result depend on the videos. Every key of
configs/common.py can be set here, or as --config.section.key=value.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs import custom

FOLDER = Path(__file__).resolve().parent


def get_config() -> ConfigDict:
    config = custom.get_config()
    config.name = {name!r}
    config.data.annotations = str(FOLDER / {annotations!r})
{videos}    # What was decided in the page of losa_jax.review is trained on too.
    config.data.reviews = str(FOLDER / {predictions!r})
    # The frozen backbone's features, computed once for each video, of the video
    # as it is and of four augmented views.
    config.data.cache = str(FOLDER / {features!r})
    config.data.cache_copies = 4
    config.window.align_to_clips = True
{backbone}    return config
'''


def init(folder: Path, *, backbone: str = "", group: str = "") -> Path:
    """Writes the recipe of a folder, and its annotations where they are in
    the layout of another tool; prints the next command.

    Args:
      folder: holds videos and annotations, also in subfolders.
      backbone: a converted folder, a checkpoint's file, or OWNER/NAME of the
        Hugging Face hub; "" is that of configs/custom.py.
      group: pattern of the videos that a split keeps together.

    Returns:
      the recipe's path. A recipe that is there already is kept.

    Raises:
      InputError: no videos, no annotations, or such as cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder: name the one that holds "
                         "the videos and their annotations")
    if ":" in str(folder):
        raise InputError(f"{folder}: has a colon in its path, which --config= "
                         "takes for the end of a recipe's name: rename it")
    outputs = [folder / name for name in (RUN, PREDICTIONS, FEATURES,
                                          BACKBONE)]
    all_paths = videos_below(folder)[0]
    paths = [path for path in all_paths
             if not any(path.is_relative_to(one) for one in outputs)]
    if len(paths) < len(all_paths):
        print(f"{counted(len(all_paths) - len(paths), 'video')} below "
              f"{', '.join(one.name for one in outputs)} left out: these "
              f"folders of {folder} are for results; rename one with videos")
    if not paths:
        raise InputError(f"{folder}: holds no videos: copy them into it, or "
                         "name another folder")
    videos = Path(os.path.commonpath([path.parent for path in paths]))
    reading = _write_annotations(folder, videos, outputs, group)
    if reading is not None:
        num_annotated = sum(facts.fps is not None or facts.duration_seconds
                            is not None for facts in reading.videos.values())
        print(f"{folder}: {counted(len(paths), 'video')}, "
              f"{num_annotated} of them in the annotations")
    below = videos.relative_to(folder).as_posix()
    videos_line = "    config.data.videos = str(FOLDER" + (
        "" if below == "." else f" / {below!r}") + ")\n"
    line = _backbone_line(folder, backbone)
    recipe = folder / RECIPE_FILE
    commands = _commands(folder, videos)
    if recipe.exists():
        print(f"{recipe} is there already and is kept")
        _report_missing_lines(recipe, [videos_line, line])
    else:
        write_text(recipe, _RECIPE.format(
            title=_in_docstring(folder.resolve().name),
            name=folder.resolve().name, annotations=ANNOTATIONS_FILE,
            videos=videos_line, predictions=PREDICTIONS, features=FEATURES,
            backbone=line, **{name: _in_docstring(command)
                              for name, command in commands.items()}))
        print(f"wrote {recipe}")
    print(f"train:    {commands['train']}\npredict:  {commands['predict']}\n"
          f"review:   {commands['review']}\nand train again by the first")
    return recipe


def _write_annotations(folder: Path, videos: Path, outputs: list[Path],
                       group: str) -> Reading | None:
    """Converts the annotations in a folder to annotations.json; keeps a file
    of that name that another program or a person wrote.

    Returns:
      what was read; None if the file of that name is kept.
    """
    target = folder / ANNOTATIONS_FILE
    if target.exists() and not _is_ours(target):
        try:
            load_annotations(target)
        except InputError as error:
            raise InputError(
                f"{error}\nor give this file another name: this command then "
                f"reads it, and writes {ANNOTATIONS_FILE} with a split"
                ) from error
        print(f"{target} is taken as it is; other files are not read: remove "
              "it to have it written from them")
        return None
    try:
        return convert_annotations(
            [folder], Options(), videos=videos, output=target, group=group,
            version=_VERSION, skipped=[
                *outputs, folder / REVIEWS_FOLDER, folder / RECIPE_FILE])
    except NoAnnotationsError as error:
        if target.exists():
            print(f"{target} stays as it is: there are no other annotations")
            return None
        if error.tables:
            raise _with_command(error, folder, videos) from error
        raise InputError(
            f"{folder}: holds videos but no annotations: copy the files of "
            "your annotation tool into it, or mark actions in a browser with "
            f"`python -m losa_jax.review {shlex.quote(str(folder))}`; then "
            "run this command again") from error
    except InputError as error:
        if "--" not in str(error) or "--group=" in str(error):
            raise
        raise _with_command(error, folder, videos) from error


def _with_command(error: InputError, folder: Path, videos: Path
                  ) -> InputError:
    """Returns an error that names an option, with the command that has it."""
    inputs, below, output = (shlex.quote(str(path)) for path in (
        folder, videos, folder / ANNOTATIONS_FILE))
    return InputError(
        f"{error}\ngive the option to `python -m losa_jax.annotations "
        f"{inputs} --videos={below} --output={output}`, then run this command "
        "again, which takes that file as it is")


def _is_ours(path: Path) -> bool:
    content = read_json(path)
    return isinstance(content, dict) and content.get("version") == _VERSION


def _report_missing_lines(recipe: Path, lines: list[str]) -> None:
    """Prints the lines of this command that a recipe of before lacks."""
    text = read_text(recipe)
    if missing := [line for line in lines if line.strip() not in text]:
        print("it lacks these lines of this command: write them into its "
              f"get_config, or remove {recipe.name} and run this command "
              f"again\n{''.join(missing)}", end="")


def _in_docstring(text: str) -> str:
    return text.replace("\\", r"\\").replace('"""', r'\"\"\"')


def _backbone_line(folder: Path, backbone: str) -> str:
    """Returns the line of the recipe for a backbone; converts a file."""
    if not backbone:
        return ""
    path = Path(backbone)
    if checkpoint_file.is_hub_name(backbone):
        value = repr(backbone)
    elif (path / backbone_folder.FACTS_FILE).is_file():
        value = repr(str(path.resolve()))
    else:
        target = folder / BACKBONE
        if (target / backbone_folder.FACTS_FILE).is_file():
            print(f"{target} is there already and is kept: to convert {path}, "
                  "remove it and run this command again")
        else:
            convert(path, target)
        value = f"str(FOLDER / {BACKBONE!r})"
    return f"    config.backbone.checkpoint = {value}\n"


def _commands(folder: Path, videos: Path) -> dict[str, str]:
    """Returns the commands of the loop, as they are typed."""
    def quoted(path: Path) -> str:
        return shlex.quote(str(path))

    run, predictions = quoted(folder / RUN), quoted(folder / PREDICTIONS)
    return {
        "init": f"python -m losa_jax.init {quoted(folder)}",
        "train": "python -m losa_jax.main --config="
                 f"{quoted(folder / RECIPE_FILE)} --workdir={run}",
        "predict": f"python -m losa_jax.predict {quoted(videos)} "
                   f"--checkpoint={run} --output={predictions} --report",
        "review": f"python -m losa_jax.review {predictions}"}
