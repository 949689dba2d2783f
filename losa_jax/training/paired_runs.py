"""Two runs whose classes are paired: verbs and nouns of EPIC-KITCHENS-100.

Both see the same windows. `losa_jax.detection.decode.decode_pairs` describes
how their outputs are combined.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from losa_jax.data.annotations import epic
from losa_jax.detection.segments import Detection, Segments
from losa_jax.errors import InputError
from losa_jax.training import build, restore
from losa_jax.training.run_facts import FEATURE_KEYS
from losa_jax.training.step import TrainState
from losa_jax.utils import recipes, run_files
from losa_jax.utils.atomic_write import write_text
from losa_jax.utils.text_files import read_json

SUBMISSION_FILE = "epic_submission.json"
# What the challenge asks a submission to state: how the videos, annotations
# and data of training were used (2, 3 and 4 are OpenTAD's values).
_SUPERVISION = {"sls_pt": 2, "sls_tl": 3, "sls_td": 4}
# Settings, beside those of windows, that decide what a head sees and at which
# points it predicts.
_POINTS = (("head", ("num_levels",)), ("augment", ("size",)),
           ("features", FEATURE_KEYS))


@dataclasses.dataclass(frozen=True)
class PairedRun:
    """The second of two runs, on the mesh; `class_names` are all pairs."""

    model: build.Model
    state: TrainState
    class_names: tuple[str, ...]

    def predict_step(self, config: Any, first: build.Model, mesh: Mesh
                     ) -> Callable[..., Segments]:
        """Returns the jitted step of both, with the arguments of the first."""
        step = build.jit_pair_step(config, (first, self.model), mesh)

        def predict(parameters: Any, statistics: Any, frozen: Any, batch: Any
                    ) -> Segments:
            return step((parameters, self.state.ema),
                        (statistics, self.state.statistics),
                        (frozen, self.model.frozen), batch)

        return predict


def open_pair(config: Any, workdir: Path, other: Path, which: str, mesh: Mesh
              ) -> tuple[tuple[str, ...], PairedRun]:
    """Returns the classes of the run in `workdir`, and the run to pair it
    with, whose settings are in its config.json.

    Raises:
      InputError: there is no such run, it does not see the same windows, or
        the two are not of verbs and of nouns.
    """
    path = other / run_files.CONFIG_FILE
    content = read_json(path) if path.is_file() else None
    if not isinstance(content, dict):
        raise InputError(f"--pair_with={other}: holds no run: name the "
                         "--workdir of the training of nouns")
    second = config.copy_and_resolve_references()
    with second.unlocked():
        second.update(recipes.with_later_keys(content))
    different = [f"config.{section}.{key}={second[section][key]} (here "
                 f"{config[section][key]})"
                 for section, keys in (
                     ("window", tuple(config.window)), *_POINTS)
                 for key in keys if _plain(second[section][key])
                 != _plain(config[section][key])]
    if different:
        raise InputError(f"--pair_with={other}: sees other windows than "
                         f"{workdir}: {', '.join(different)}")
    names, others = (tuple(restore.run_facts_of(folder)["class_names"])
                     for folder in (workdir, other))
    words = _class_names(config.data.annotations)
    for folder, own, word in ((workdir, names, "verb"),
                              (other, others, "noun")):
        if unknown := sorted(set(own) - set(words[word])):
            raise InputError(
                f"{folder}: its class {unknown[0]!r} is no {word} of "
                f"{config.data.annotations}: give the run of verbs with "
                "--workdir and that of nouns with --pair_with")
    second.features.folder = config.features.folder
    if not config.features.folder:
        second.backbone.checkpoint = restore.find_backbone(
            other, second.backbone.checkpoint)
    model = build.build_model(second, len(others), mesh)
    state, _ = restore.restore_run(second, other, which, model, mesh, others)
    return names, PairedRun(model, state, tuple(
        epic.action_label(verb, noun) for verb in names for noun in others))


def _class_names(annotations: str) -> dict[str, tuple[str, ...]]:
    """Returns all verbs and nouns; InputError as of `write_submission`."""
    names = epic.EpicTables.of(
        list(map(Path, annotations.split(",")))).names()
    if len(names) < len(epic.NUM_CLASSES):
        raise InputError(
            f"{annotations}: give EPIC_100_verb_classes.csv and "
            "EPIC_100_noun_classes.csv behind commas")
    return names


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, list)) else value


def write_submission(path: Path, predictions: Mapping[str, Sequence[Detection]],
                     annotations: str) -> None:
    """Writes detections of actions with the numbers of the challenge.

    Raises:
      InputError: `annotations` are not EPIC's tables with both lists of
        classes.
    """
    names = _class_names(annotations)
    numbers = {epic.action_label(verb, noun): (i, j)
               for i, verb in enumerate(names["verb"])
               for j, noun in enumerate(names["noun"])}
    results = {video: [{
        "segment": [row.start_seconds, row.end_seconds], "score": row.score,
        "verb": numbers[row.label][0], "noun": numbers[row.label][1],
        "action": "{},{}".format(*numbers[row.label])} for row in rows]
        for video, rows in predictions.items()}
    write_text(path, json.dumps({
        "version": "0.2", "challenge": "action_detection", **_SUPERVISION,
        "results": results}) + "\n")
