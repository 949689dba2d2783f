"""Combines the scores of proposals and of classes of whole videos.

This is the ActivityNet recipe of ActionFormer and OpenTAD.
"""

from collections.abc import Mapping, Sequence

from losa_jax.detection.segments import Detection

# ActionFormer uses "sqrt", OpenTAD "product"; the order is the same.
FUSIONS = ("sqrt", "product")


def fuse(proposals: Sequence[Detection], scores: Mapping[str, float], *,
         top_classes: int, fusion: str = "sqrt", max_kept: int | None = None
         ) -> list[Detection]:
    """Returns a detection for each proposal and best class, best first.

    `scores` is {class: score} of the video of all proposals, and `fusion` is
    the "sqrt" of score x score, or the "product".
    """
    best = sorted(scores, key=lambda name: -scores[name])[:top_classes]
    return rescore([row._replace(label=name, class_scores=None)
                    for row in proposals for name in best], scores,
                   fusion=fusion)[:max_kept]


def rescore(detections: Sequence[Detection], scores: Mapping[str, float], *,
            fusion: str = "sqrt") -> list[Detection]:
    """Returns detections fused with the scores of their classes, best first.

    A class without a score has 0. See `fuse`.
    """
    power = 0.5 if fusion == "sqrt" else 1
    fused = [row._replace(
        score=(row.score * scores.get(row.label, 0.0)) ** power)
        for row in detections]
    return sorted(fused, key=lambda row: -row.score)
