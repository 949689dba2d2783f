"""Vidat's annotation files: actions in seconds, labels by number."""

from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File

TITLE = "Vidat"

# Vidat puts this label first, and gives it to new actions.
_PLACEHOLDER = (0, "default")


def recognizes(file: File) -> bool:
    """Whether this has a list of actions of Vidat."""
    return isinstance(file.json, dict) and isinstance(
        file.json.get("annotation"), dict) and (
        "actionAnnotationList" in file.json["annotation"])


def read(file: File, content: Content) -> None:
    """Reads the actions. The rate in the file is that of Vidat's own frames,
    not of the video."""
    annotation = file.json["annotation"]
    facts = annotation.get("video") or {}
    address = str(facts.get("src") or "")
    if not address or address.startswith(("blob:", "data:")):
        video = content.unnamed_video(file.path)
    else:
        video = content.video(address,
                              duration_seconds=facts.get("duration"))
    labels = {one["id"]: str(one["name"]) for one in (
        file.json.get("config") or {}).get("actionLabelData", [])}
    for number, one in enumerate(annotation["actionAnnotationList"] or []):
        where = f"{file.name}, action {number}"
        try:
            label = labels.get(one["action"], "")
            if (one["action"], label) == _PLACEHOLDER:
                content.remark("actions with the label \"default\", left "
                               "out", where)
                continue
            content.add(video, label, float(one["start"]), float(one["end"]),
                        where=where)
        except (KeyError, TypeError, ValueError) as error:
            content.problems.append(f"{where}: needs action, start and end "
                                    f"({error!r})")
