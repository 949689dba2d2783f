"""ActivityNet-v1.3: its classes and thresholds."""

from pathlib import Path

TIOU_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


def class_names() -> tuple[str, ...]:
    """Returns the 200 classes, sorted, as the recipe's labels are."""
    path = Path(__file__).with_name("activitynet_classes.txt")
    return tuple(path.read_text(encoding="utf-8").splitlines())
