"""Compares a round with the one that it started from."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from losa_jax.data.predictions import read_predictions
from losa_jax.data.reviews import REVIEWS_FOLDER, Review, read_reviews
from losa_jax.detection import metrics
from losa_jax.detection.segments import Detection
from losa_jax.distributed import remote_workdir
from losa_jax.jobs import evaluate, setup
from losa_jax.jobs.again import review_changes
from losa_jax.training import restore, rounds, start_from, training_set
from losa_jax.utils import run_files

# Among the facts of a run: number of actions, and time of the last verdict.
FACT = "training_data"
_MAX_NAMES = 5


def data_facts(config: Any, data: setup.DataSet) -> dict[str, Any]:
    """Returns the fact of a run with which the next round is compared."""
    return {FACT: {
        "actions": sum(len(video.actions) for video in data.train),
        "last_verdict": review_changes.newest_verdict(_reviews(config))}}


def compare_rounds(config: Any, workdir: Path, data: setup.DataSet,
                   facts: dict[str, Any],
                   predictions: dict[str, list[Detection]]) -> None:
    """Prints and writes how a round differs from the one that it started
    from; does nothing for other runs.

    Args:
      facts: of the round.
      predictions: of its best weights for the testing videos.
    """
    folder = rounds.latest(workdir)
    start = facts.get(start_from.FACT)
    if not folder or not start or workdir / start["folder"] != folder:
        return
    saved = restore.run_facts_of(folder)
    changes = _changes(config, saved, facts)
    print(f"\nwhat changed since {start['folder']}:")
    print("".join(f"  {line}\n" for line in _change_lines(changes)), end="")
    scores = _scores(config, folder, data, saved, predictions)
    setup.write_json(workdir / run_files.AGAIN_FILE, {
        "started_from": start, **changes, "scores": scores})
    if not scores:
        print(f"{folder} has no predictions of these testing videos to "
              "compare with")
    for score in scores:
        print(_table(score, start["folder"]))
    if scores and scores[-1]["after"] < scores[-1]["before"]:
        place = remote_workdir.remote_of(workdir) or workdir
        drop = 100 * (scores[-1]["before"] - scores[-1]["after"])
        print(f"The new weights are worse, by {drop:.2f} points. The old ones "
              "are still there: python -m losa_jax.predict VIDEO_OR_FOLDER "
              f"--checkpoint={place / start['folder']}")


def _reviews(config: Any) -> list[Review]:
    folders = filter(None, map(str.strip, config.data.reviews.split(",")))
    return [review for folder in folders
            for review in read_reviews(Path(folder) / REVIEWS_FOLDER)]


def _changes(config: Any, saved: dict[str, Any], facts: dict[str, Any]
             ) -> dict[str, Any]:
    old, new = (one[training_set.FACT]["videos"] for one in (saved, facts))
    before, after = (one.get(FACT, {}) for one in (saved, facts))
    old_names, new_names = (one["class_names"] for one in (saved, facts))
    return {
        "videos": {
            "before": len(old), "after": len(new),
            "added": [name for name in new if name not in old],
            "changed": [name for name in new
                        if old.get(name, new[name]) != new[name]],
            "gone": [name for name in old if name not in new]},
        "actions": {"before": before.get("actions"),
                    "after": after.get("actions")},
        "classes": {
            "added": [name for name in new_names if name not in old_names],
            "gone": [name for name in old_names if name not in new_names]},
        "review": dataclasses.asdict(review_changes.review_changes(
            _reviews(config), before.get("last_verdict", "")))}


def _change_lines(changes: dict[str, Any]) -> list[str]:
    videos, actions = changes["videos"], changes["actions"]
    lines = [f"training videos: {videos['before']}, now {videos['after']}"
             + "".join(f"; {what} {_listed(videos[what])}" for what
                       in ("added", "changed", "gone") if videos[what])]
    if actions["before"] is not None:
        lines.append(f"their actions: {actions['before']}, now "
                     f"{actions['after']}")
    lines += [f"classes {what}: {', '.join(names)}"
              for what, names in changes["classes"].items() if names]
    review = review_changes.ReviewChanges(**changes["review"])
    return [*lines, *([f"review: {review}"] if review.num_videos else [])]


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:_MAX_NAMES])}" + (
        ", ...)" if len(names) > _MAX_NAMES else ")")


def _scores(config: Any, folder: Path, data: setup.DataSet,
            saved: dict[str, Any], predictions: dict[str, list[Detection]]
            ) -> list[dict[str, Any]]:
    """Returns the mAPs of the same videos with the truth of today: of all
    classes and, where some are new, of those that both rounds know."""
    path = folder / run_files.PREDICTIONS_FILE
    old = read_predictions(path) if path.is_file() else {}
    common = {name: rows for name, rows in predictions.items() if name in old}
    truth, class_names = evaluate.ground_truth(data, common)
    known = [name for name in class_names if name in saved["class_names"]]
    scores = []
    for labels in [class_names, *([known] if (
            len(known) < len(class_names)
            and not config.data.class_agnostic) else [])]:
        kept = {video: [action for action in actions if action[2] in labels]
                for video, actions in truth.items()}
        if not any(kept.values()):
            continue
        before, after = (metrics.evaluate_map(
            kept, rows, class_names=labels,
            tiou_thresholds=tuple(config.evaluate.tiou_thresholds))
            for rows in ({name: old[name] for name in common}, common))
        scores.append({
            "num_videos": len(kept), "num_classes": len(labels),
            "tiou_thresholds": list(after.tiou_thresholds),
            "before": before.average_map, "after": after.average_map,
            "before_per_threshold": before.map_per_threshold.tolist(),
            "after_per_threshold": after.map_per_threshold.tolist()})
    return scores


def _table(score: dict[str, Any], name: str) -> str:
    lines = [("tIoU", [f"{one:g}" for one in score["tiou_thresholds"]],
              "average")]
    lines += [(what, [f"{100 * value:.2f}" for value
                      in score[f"{key}_per_threshold"]],
               f"{100 * score[key]:.2f}")
              for what, key in ((name, "before"), ("now", "after"))]
    return (f"mAP of the same {score['num_videos']} testing videos, "
            f"{score['num_classes']} classes:\n" + "\n".join(
                f"  {first:<12}" + "".join(f"{one:>8}" for one
                                           in (*values, last))
                for first, values, last in lines))
