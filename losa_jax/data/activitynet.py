"""ActivityNet-v1.3: its classes and thresholds."""

from pathlib import Path

TIOU_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
# Videos in the three subsets as of 2016, and those that BMN's table still
# had: the others were taken off the net.
NUM_VIDEOS = {"training": 10024, "validation": 4926, "testing": 5044}
NUM_VIDEOS_LEFT = {"training": 9649, "validation": 4728, "testing": 4851}


def class_names() -> tuple[str, ...]:
    """The 200 classes, sorted: the order of labels in `configs`."""
    path = Path(__file__).with_name("activitynet_classes.txt")
    return tuple(path.read_text(encoding="utf-8").splitlines())
