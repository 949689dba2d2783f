"""Class-agnostic proposals x scores of whole videos.

Source: the ActivityNet recipe of ActionFormer
(github.com/happyharrycn/actionformer_release) and OpenTAD
(github.com/sming256/OpenTAD): every proposal stands once for each of the
video's best classes.
"""

from collections.abc import Mapping, Sequence

from losa_jax.detection.segments import Detection
from losa_jax.errors import InputError

# "sqrt" is ActionFormer's, "product" OpenTAD's for CUHK's file: one order.
FUSIONS = ("sqrt", "product")


def fuse(proposals: Sequence[Detection], scores: Mapping[str, float], *,
         top_classes: int, fusion: str = "sqrt", max_kept: int | None = None
         ) -> list[Detection]:
    """Proposals of one video as detections, best first.

    Args:
      proposals: their labels do not count.
      scores: {class: score} of the video.
      top_classes: classes that a proposal stands for.
      fusion: "sqrt" of score x score, or the "product".
      max_kept: detections kept; None keeps all.
    """
    _check(fusion)
    best = sorted(scores, key=lambda name: -scores[name])[:top_classes]
    found = []
    for row in proposals:
        for name in best:
            found.append(Detection(row.start_seconds, row.end_seconds, name,
                                   _fused(row.score, scores[name], fusion)))
    found.sort(key=lambda row: -row.score)
    return found if max_kept is None else found[:max_kept]


def rescore(detections: Sequence[Detection], scores: Mapping[str, float], *,
            fusion: str = "sqrt") -> list[Detection]:
    """Detections that have classes, weighed by the video's score of theirs.

    Arguments as those of `fuse`; a class without a score has 0.
    """
    _check(fusion)
    found = [row._replace(score=_fused(row.score, scores.get(row.label, 0.0),
                                       fusion)) for row in detections]
    return sorted(found, key=lambda row: -row.score)


def _fused(one: float, other: float, fusion: str) -> float:
    return (one * other) ** 0.5 if fusion == "sqrt" else one * other


def _check(fusion: str) -> None:
    if fusion not in FUSIONS:
        raise InputError(f"fusion={fusion!r}: "
                         f"choose one of {', '.join(FUSIONS)}")
