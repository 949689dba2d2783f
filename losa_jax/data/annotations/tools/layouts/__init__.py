"""The table of all layouts of annotation tools, and which one a file has."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File
from losa_jax.data.annotations.tools.layouts import (
    activitynet,
    anvil,
    audacity,
    boris,
    cvat,
    datavyu,
    deepethogram,
    elan,
    fiftyone,
    frame_labels,
    label_studio,
    own_table,
    praat,
    soccernet,
    subtitles,
    via,
    vidat,
    vtrace,
    x_anylabeling,
)
from losa_jax.data.annotations.tools.recording import Recording

# Writes detections, for a folder: {name of a file: its text}.
Writer = Callable[[Sequence[Recording], Path], dict[str, str]]


class Layout(Protocol):
    """A module of a layout."""

    TITLE: str

    def recognizes(self, file: File) -> bool:
        """Whether a file has this layout."""

    def read(self, file: File, content: Content) -> None:
        """Adds what the file holds."""


# In the order in which they are tried: the most particular first.
LAYOUTS: Mapping[str, Layout] = {
    "elan": elan,
    "anvil": anvil,
    "cvat": cvat,
    "boris": boris,
    "label_studio": label_studio,
    "via": via,
    "x_anylabeling": x_anylabeling,
    "vidat": vidat,
    "soccernet": soccernet,
    "fiftyone": fiftyone,
    "vtrace": vtrace,
    "activitynet": activitynet,
    "datavyu": datavyu,
    "praat": praat,
    "subtitles": subtitles,
    "deepethogram": deepethogram,
    "table": own_table,
    "audacity": audacity,
    "frame_labels": frame_labels,
}


# Formats that `predict` writes beside its own JSON.
WRITERS: Mapping[str, Writer] = {
    "csv": own_table.write,
    "srt": subtitles.write_srt,
    "vtt": subtitles.write_vtt,
    "elan": elan.write,
    "boris": boris.write,
    "via": via.write,
    "label_studio": label_studio.write,
    "x_anylabeling": x_anylabeling.write,
    "fiftyone": fiftyone.write,
    "audacity": audacity.write,
}
# JSON is written whether it is named or not.
FORMATS = ("json", *WRITERS)
DEFAULT_FORMATS = ("json", "csv", "srt", "vtt", "elan")
# How to open those that get a folder of their own.
OPENED_WITH: Mapping[str, str] = {
    "boris": "BORIS: File > Open project > predictions.boris",
    "via": "VIA 3 (via_video_annotator.html, in a browser): open the project "
           "NAME.json, and choose the video if it is asked for",
    "label_studio": "Label Studio: paste config.xml under Settings > Labeling "
                    "Interface > Code, add the folder of the videos as local "
                    "storage, and import tasks.json",
    "x_anylabeling": "X-AnyLabeling: copy NAME.json beside its video, and "
                     "open the video with the Video Classifier",
    "fiftyone": "FiftyOne: fiftyone.Dataset.from_dir(labels_path="
                "\"labels.json\", data_path=\"data.json\", dataset_type="
                "fiftyone.types.FiftyOneTemporalDetectionDataset)",
    "audacity": "Audacity: open the sound of the video, then File > Import > "
                "Labels > NAME.txt",
}


def layout_of(file: File) -> str:
    """Returns the name of a file's layout, "" for a file in none."""
    return next((name for name, layout in LAYOUTS.items()
                 if layout.recognizes(file)), "")


def is_companion(file: File) -> bool:
    """Whether a file goes with annotations and holds none: a labeling
    configuration, FiftyOne's data.json, a list of classes."""
    return (label_studio.is_configuration(file)
            or file.path.name in ("data.json", "mapping.txt"))
