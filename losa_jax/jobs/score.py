"""Scores a file of predictions of any program."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from losa_jax.data.annotations import epic
from losa_jax.data.annotations.block_list import blocked_videos
from losa_jax.data.annotations.formats import read_ambiguous
from losa_jax.data.annotations.lint import (
    find_faults,
    similar_names,
    summarize,
)
from losa_jax.data.annotations.load import load_annotations, load_class_names
from losa_jax.data.annotations.outside import unit_hint
from losa_jax.data.predictions import (
    read_labeled,
    read_moments,
    read_submission,
)
from losa_jax.data.records import Annotations
from losa_jax.detection import metrics, per_frame
from losa_jax.detection.diagnosis import Diagnosis, diagnose, format_diagnosis
from losa_jax.detection.recall import recall_lines, recalls
from losa_jax.errors import InputError
from losa_jax.inference import score_predictions
from losa_jax.jobs.setup import write_json
from losa_jax.report.dashboard import (
    BELOW_ZERO,
    MEANINGS,
    write_diagnosis_page,
)
from losa_jax.utils.atomic_write import make_folder, write_text

# Thresholds where none are given, by protocol.
USUAL_TIOU = {"activitynet": "0.3:0.7:0.1", "thumos": "0.3:0.7:0.1",
              "epic": "0.1:0.5:0.1", "ego4d": "0.1:0.5:0.1"}
# The most excluded videos that are printed by name.
MAX_SHOWN = 20
_MAX_THRESHOLDS = 1000


def tiou_list(text: str) -> list[float]:
    """Converts "0.3:0.7:0.1" or "0.5,0.75" to thresholds."""
    try:
        if ":" in text:
            first, last, step = map(float, text.split(":"))
            count = round((last - first) / step) + 1
            if count > _MAX_THRESHOLDS:
                raise ValueError
            values = [round(first + i * step, 6) for i in range(count)]
        else:
            values = [*map(float, text.split(","))]
    except (ValueError, ArithmeticError) as error:
        raise InputError(
            f"--tiou={text}: write first:last:step, as 0.3:0.7:0.1, or a "
            f"list, as 0.5,0.75, of at most {_MAX_THRESHOLDS} thresholds"
            ) from error
    return score_predictions.tiou_thresholds(values, f"--tiou={text}")


def score(predictions: Path, annotations: str, *, protocol: str, tiou: str,
          output: Path | None, **options: Any) -> None:
    """Runs `python -m losa_jax.score`, whose arguments these are.

    Raises:
      InputError: a file that cannot be read or does not fit.
    """
    thresholds = tiou_list(tiou or USUAL_TIOU[protocol])
    if options.get("per_frame") == "charades" and (
            predictions.suffix.lower() == ".txt"):
        write_scores(output, score_moments(predictions, annotations, **options))
        return
    if protocol != "epic":
        content, external = read_submission(predictions)
        write_scores(output, score_one(
            content, annotations, protocol=protocol, thresholds=thresholds,
            external=external, **options))
        return
    tables = epic.EpicTables.of(list(map(Path, annotations.split(","))))
    if "action" not in tables.targets:
        raise InputError(
            "--protocol=epic scores verbs, nouns and actions: give "
            "EPIC_100_verb_classes.csv and EPIC_100_noun_classes.csv behind "
            "commas in --annotations. Predictions of verbs or of nouns alone "
            "are scored with --protocol=activitynet and one of the two")
    folder = options.pop("diagnose_into")
    scores = {}
    for target, content in read_labeled(
            predictions, epic.submission_labels(tables.names())).items():
        print(f"{target.upper()}S")
        scores[target] = score_one(
            content, tables.only(target), protocol=protocol,
            thresholds=thresholds, external="",
            diagnose_into=folder and folder / target, **options)
    print("average mAP in percent: " + ", ".join(
        f"{target} {100 * content['average_map']:.2f}"
        for target, content in scores.items()))
    write_scores(output, scores)


def score_moments(path: Path, annotations: str, *, subset: str, videos: str,
                  class_names: str, diagnose_into: Path | None,
                  ambiguous: Path | None, **_others: Any) -> dict[str, Any]:
    """Prints the mAP of moments of a submission to Charades' localization;
    returns it as JSON content."""
    if diagnose_into or ambiguous:
        raise InputError(f"{path}: has scores of moments and no segments: "
                         "leave out --diagnose and --ambiguous")
    loaded = load_annotations(
        annotations, load_class_names(class_names) if class_names else None)
    excluded, _ = blocked_videos(videos, loaded.videos)
    truth = _ground_truth(loaded, subset, videos, excluded)
    rows = read_moments(path, per_frame.CHARADES_MOMENTS)
    known = rows.keys() & truth.keys()
    if not known:
        # All moments would tie, and their order would decide.
        raise InputError(
            f"{path}: none of its {len(rows)} videos, the first "
            f"{_printable(next(iter(rows)))}, is of subset {subset!r} of "
            f"{annotations}: give the file of this subset")
    report = score_predictions.moments_report(loaded, truth, rows, path)
    for name, precision in zip(report.class_names, report.average_precision,
                               strict=True):
        print(f"{name}: {100 * precision:.2f}")
    print(f"{report}\n{len(known)} of {len(truth)} videos have lines; "
          f"{len(rows) - len(known)} videos of the file are not in subset "
          f"{subset} and are left out")
    return {"per_frame": report.as_json()}


def write_scores(output: Path | None, content: Mapping[str, Any]) -> None:
    """Writes the numbers, if a file is named for them."""
    if output is not None:
        write_json(output, dict(content))


def score_one(content: metrics.Predictions, annotations: str, *, subset: str,
              protocol: str, thresholds: list[float], external: str,
              videos: str, class_names: str, ties: str, unknown: str,
              ambiguous: Path | None, diagnose_into: Path | None,
              classifier: str, per_frame: str = "",
              moments_per_second: float = 0.0) -> dict[str, Any]:
    """Prints the scores of predictions; returns them as JSON content.

    `external` tells what else they come from; the others are arguments of
    `python -m losa_jax.score`. InputError as of `score`.
    """
    loaded = load_annotations(
        annotations, load_class_names(class_names) if class_names else None)
    submitted = score_predictions.fit_ids(content, loaded.videos)
    excluded, doubts = blocked_videos(
        videos, {**loaded.videos, **submitted})
    truth = _ground_truth(loaded, subset, videos, excluded)
    chosen = loaded.subset(subset)
    predicted = {video: rows for video, rows in submitted.items()
                 if video not in excluded}
    labels = score_predictions.present_classes(loaded, truth)
    # The kit of EPIC-KITCHENS-100 removes no duplicates.
    rules = metrics.Rules(ties, unknown, every_action=protocol == "epic")
    report = score_predictions.scored(
        truth, predicted, labels, protocol=protocol, tiou=thresholds,
        rules=rules, ambiguous=read_ambiguous(ambiguous) if ambiguous else None)
    if per_frame:
        report = dataclasses.replace(
            report, per_frame=score_predictions.frame_report(
                loaded, truth, predicted, protocol=per_frame,
                moments_per_second=moments_per_second))
    print(metrics.format_map_table(report))
    for line in (*score_predictions.unmatched(loaded, truth, predicted),
                 *doubts, *similar_names(loaded),
                 unit_hint(chosen, {}, {})):
        if line:
            print(line)
    for line in summarize({
            video.video_id: find_faults(video) for video in chosen
            if video.video_id not in excluded}):
        print(f"annotations: {line}")
    source = f"classes from: {classifier}" if classifier else external
    print(source or "classes from: unknown (no external_data in the file); "
          "name an external classifier with --classifier")
    if protocol != "thumos":
        recall = recalls(
            truth, predicted, class_names=labels, tiou_thresholds=thresholds,
            rules=rules, ego4d=protocol == "ego4d")
        print("\n".join(recall_lines(recall, thresholds)))
        report = dataclasses.replace(report, recall=recall)
    elif ambiguous is None:
        print("no Ambiguous segments: --ambiguous=FILE names them")
    silent = sum(not predicted.get(video) for video in truth)
    print(f"protocol {protocol}; {report.num_videos} videos, "
          f"{report.num_actions:,} actions, {report.num_predictions:,} "
          f"predictions; {silent} videos without a prediction")
    for video, reason in list(excluded.items())[:MAX_SHOWN]:
        print(f"left out: {_printable(video)} {reason}")
    if len(excluded) > MAX_SHOWN:
        print(f"left out: {len(excluded) - MAX_SHOWN} more")
    _print_doubts(predicted, truth, subset, protocol != "thumos", rules)
    if diagnose_into is not None:
        write_diagnosis(diagnose_into, diagnose(
            truth, predicted, class_names=labels, tiou_thresholds=thresholds,
            durations={video.video_id: video.duration_seconds or 0.0
                       for video in chosen}))
    return {**report.as_json(), "classifier": classifier or external or None}


def _ground_truth(loaded: Annotations, subset: str, videos: str,
                  excluded: Mapping[str, str]) -> metrics.Truth:
    """Returns the actions to score; InputError if no video is left."""
    truth = score_predictions.ground_truth(loaded, subset, excluded)
    if not truth:
        raise InputError(f"--videos={videos}: leaves out all videos of "
                         f"subset {subset!r}: name fewer")
    return truth


def write_diagnosis(folder: Path, diagnosis: Diagnosis) -> None:
    """Prints the tables; writes them, diagnosis.json and a page of charts."""
    make_folder(folder)
    text = "\n".join([
        format_diagnosis(diagnosis), "",
        *(f"{name:<15} {meaning}" for name, meaning in MEANINGS.items()),
        BELOW_ZERO])
    print(f"\n{text}\nwrote {folder}; its page: {folder / 'diagnosis.html'}")
    write_text(folder / "diagnosis.txt", text + "\n")
    write_json(folder / "diagnosis.json", dataclasses.asdict(diagnosis))
    write_diagnosis_page(folder / "diagnosis.html",
                         dataclasses.asdict(diagnosis))


def _printable(name: str) -> str:
    return name if name.isprintable() else repr(name)


def _print_doubts(predicted: metrics.Predictions, truth: metrics.Truth,
                  subset: str, has_rules: bool, rules: metrics.Rules
                  ) -> None:
    """Prints the predictions outside the subset and those of equal scores."""
    outside = [video for video in predicted if video not in truth]
    if outside:
        effect = ("count as false, which lowers the mAP; --unknown=drop "
                  "leaves them out" if has_rules
                  and rules.unknown_videos == "false" else "are left out")
        number = sum(len(predicted[video]) for video in outside)
        print(f"{len(outside)} videos with {number} predictions are not in "
              f"subset {subset} ("
              f"{', '.join(map(_printable, outside[:5]))}): they {effect}")
    counts = Counter((row.label, row.score) for rows in predicted.values()
                     for row in rows)
    tied = sum(count for count in counts.values() if count > 1)
    if tied and has_rules:
        print(f"{tied:,} predictions share their score with another of their "
              "class: their order is that of " + (
                  "numpy's sort and depends on the processor, --ties=stable "
                  "does not" if rules.ties == "numpy" else "the file"))
