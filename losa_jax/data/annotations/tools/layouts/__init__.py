"""The table of all layouts of annotation tools, and which one a file has."""

from collections.abc import Mapping
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


def layout_of(file: File) -> str:
    """Returns the name of a file's layout, "" for a file in none."""
    return next((name for name, layout in LAYOUTS.items()
                 if layout.recognizes(file)), "")


def is_companion(file: File) -> bool:
    """Whether a file goes with annotations and holds none: a labeling
    configuration, FiftyOne's data.json, a list of classes."""
    return (label_studio.is_configuration(file)
            or file.path.name in ("data.json", "mapping.txt"))
