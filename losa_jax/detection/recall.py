"""Recall@kx: the share of actions among the k n best predictions of a video and
class that has n actions.

Two readings are published. ActionFormer and OpenTAD take the mean over the
classes, and an action is matched where the tIoU reaches the threshold. The kit
of Ego4D's Moment Queries counts the actions of all classes together, and the
tIoU must be above the threshold.
"""

from collections.abc import Mapping, Sequence

from losa_jax.detection import metrics

MULTIPLES = (1, 5)
# What the kit of Ego4D prints, and how its rows are named.
KIT_TIOU, KIT_MULTIPLES, _KIT = (0.3, 0.5, 0.7), (1, 2, 3, 4, 5), "kit_"


def recalls(ground_truth: metrics.Truth, predictions: metrics.Predictions, *,
            class_names: Sequence[str], tiou_thresholds: Sequence[float],
            rules: metrics.Rules = metrics.OURS, ego4d: bool = False
            ) -> dict[str, list[float]]:
    """Returns recall at the thresholds by "1x" and "5x", and with `ego4d` also
    that of the kit, at its own thresholds, by "kit_1x" to "kit_5x"."""
    rows: dict[str, list[float]] = {}
    for prefix, multiples, thresholds in (
            ("", MULTIPLES, tiou_thresholds),
            *([(_KIT, KIT_MULTIPLES, KIT_TIOU)] if ego4d else ())):
        recall = metrics.recall_at(
            ground_truth, predictions, class_names=class_names,
            tiou_thresholds=thresholds, multiples=multiples, rules=rules,
            pooled=bool(prefix))
        rows |= {f"{prefix}{multiple}x": row for multiple, row
                 in zip(multiples, recall.tolist(), strict=True)}
    return rows


def recall_lines(recall: Mapping[str, list[float]],
                 tiou_thresholds: Sequence[float]) -> list[str]:
    """Returns a line in percent for each row of `recalls`, and between the two
    readings one that says which is which."""
    lines = []
    for name, row in recall.items():
        is_kit = name.startswith(_KIT)
        if name == f"{_KIT}{KIT_MULTIPLES[0]}x":
            lines.append(
                "recall above: per class, then the mean over classes, tIoU "
                "reached (ActionFormer, OpenTAD). Below, as Ego4D's own kit: "
                "all actions together, tIoU passed")
        whose = "kit's " if is_kit else ""
        lines.append(f"{whose}recall@{name.removeprefix(_KIT)}  " + "  ".join(
            f"{one:g}: {100 * value:.2f}" for one, value in zip(
                KIT_TIOU if is_kit else tiou_thresholds, row, strict=True)))
    return lines
