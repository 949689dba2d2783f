"""Writes a recipe for the videos and annotations of a folder."""

import os
import shlex
from pathlib import Path

from losa_jax.data.annotations.tools.content import Options
from losa_jax.data.annotations.tools.database import VERSION
from losa_jax.data.annotations.tools.read import NoAnnotationsError
from losa_jax.data.reviews import REVIEWS_FOLDER
from losa_jax.data.video.folder import videos_below
from losa_jax.errors import InputError
from losa_jax.jobs.annotations import convert_annotations
from losa_jax.jobs.convert import convert
from losa_jax.utils.atomic_write import write_text
from losa_jax.utils.text_files import read_json
from losa_jax.weights import backbone_folder, checkpoint_file

RECIPE_FILE, ANNOTATIONS_FILE = "recipe.py", "annotations.json"
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
    config.data.videos = str(FOLDER{videos})
    # What was decided in the page of losa_jax.review is trained on too.
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
    outputs = [folder / name for name in (RUN, PREDICTIONS, FEATURES,
                                          BACKBONE)]
    paths = [path for path in videos_below(folder)[0]
             if not any(path.is_relative_to(one) for one in outputs)]
    if not paths:
        raise InputError(f"{folder}: holds no videos: copy them into it, or "
                         "name another folder")
    videos = Path(os.path.commonpath([path.parent for path in paths]))
    _write_annotations(folder, videos, outputs, group)
    line = _backbone_line(folder, backbone)
    recipe = folder / RECIPE_FILE
    commands = _commands(folder, videos)
    if recipe.exists():
        print(f"{recipe} is there already and is kept")
    else:
        below = videos.relative_to(folder).as_posix()
        write_text(recipe, _RECIPE.format(
            title=folder.resolve().name.replace('"', "'"),
            name=folder.resolve().name, annotations=ANNOTATIONS_FILE,
            videos="" if below == "." else f" / {below!r}",
            predictions=PREDICTIONS, features=FEATURES, backbone=line,
            **commands))
        print(f"wrote {recipe}")
    print(f"train:    {commands['train']}\npredict:  {commands['predict']}\n"
          f"review:   {commands['review']}\nand train again by the first")
    return recipe


def _write_annotations(folder: Path, videos: Path, outputs: list[Path],
                       group: str) -> None:
    """Converts the annotations in a folder to annotations.json; keeps a file
    of that name that another program or a person wrote."""
    target = folder / ANNOTATIONS_FILE
    if target.exists() and read_json(target).get("version") != VERSION:
        print(f"{target} is taken as it is; other files are not read")
        return
    try:
        convert_annotations([folder], Options(), videos=videos, output=target,
                            group=group,
                            skipped=[*outputs, folder / REVIEWS_FOLDER])
    except NoAnnotationsError as error:
        if target.exists():
            return
        raise InputError(
            f"{folder}: holds videos but no annotations: copy the files of "
            "your annotation tool into it, or mark actions in a browser with "
            f"`python -m losa_jax.review {shlex.quote(str(folder))}`; then "
            "run this command again") from error


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
        if not (target / backbone_folder.FACTS_FILE).is_file():
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
