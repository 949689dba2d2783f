"""ELAN documents (.eaf): tiers of annotations over one or several media.

A label is the text of an annotation, or the name of its tier where the text
is empty or the user says so. Dependent tiers (PARENT_REF) are read only if
they are named.
"""

import datetime
import mimetypes
import os
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from losa_jax.data.annotations.tools import video_names
from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File
from losa_jax.data.annotations.tools.recording import (
    Recording,
    lanes,
    one_line,
)
from losa_jax.data.annotations.tools.video_names import Parts
from losa_jax.errors import InputError

TITLE = "ELAN"

# Seconds of a unit; frames are those of television.
_UNITS = {"milliseconds": 1e-3, "PAL-frames": 1 / 25,
          "NTSC-frames": 1001 / 30000}
_SOUND = (".wav", ".mp3", ".aif", ".aiff", ".flac", ".m4a", ".ogg")
# Our own documents: the score is in a tier of this type, in older ones
# behind the label of tiers of that type.
_AUTHOR, _TYPE, _SCORE_TYPE = "losa_jax", "actions", "score"
_OLD_TYPE = "detections"
_OLD_VALUE = re.compile(r"(.+) (\d\.\d\d)", re.DOTALL)
# Texts of a tier that are nearly all different are descriptions.
_MANY, _DIFFERENT, _BLANKS = 3, 0.8, 2
# Characters that XML 1.0 does not allow.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Constraints of tier types; ELAN's own files list all four.
_STEREOTYPES = {
    "Time_Subdivision": "Parts of the parent, without gaps",
    "Symbolic_Subdivision": "Parts of the parent in order, without times",
    "Symbolic_Association": "One for each of the parent's annotations",
    "Included_In": "Inside the parent, gaps allowed",
}


class _Medium(NamedTuple):
    address: str
    mime_type: str
    origin: str  # milliseconds


@dataclass
class _Annotation:
    text: str
    start: str = ""  # time slots
    end: str = ""
    parent: str = ""


def recognizes(file: File) -> bool:
    """Whether this is an ELAN document."""
    return file.xml is not None and file.xml.tag == "ANNOTATION_DOCUMENT"


def read(file: File, content: Content) -> None:
    """Reads the annotations of the chosen tiers."""
    root = file.xml
    assert root is not None
    medium = _medium(root, file, content)
    if medium is None:
        return
    video, offset = medium
    tiers = {tier.get("TIER_ID", ""): tier for tier in root.iter("TIER")}
    annotations = {name: _annotations(tier) for name, tier in tiers.items()}
    slots = _slots(root, file)
    for name in sorted(tiers, key=lambda one: _depth(one, tiers)):
        _spread(annotations[name], slots)
    scores = _scores(root, tiers, annotations)
    by_id = {key: one for tier in annotations.values()
             for key, one in tier.items()}
    for name in _chosen(tiers, annotations, content, file):
        for key, one in annotations[name].items():
            times = _times(one, by_id, slots)
            where = f"{file.name}, {key} of tier {name!r}"
            if times is None:
                content.remark("annotations without times, left out", where)
                continue
            label, score = _label(one, name, tiers[name], root, content)
            content.add(video, label, times[0] + offset, times[1] + offset,
                        where=where, score=scores.get(key, score))


def _medium(root: Element, file: File, content: Content
            ) -> tuple[Parts, float] | None:
    """Returns the video and what is to be added to times; None where it is
    not the camera that the user chose."""
    media = [_Medium(one.get("MEDIA_URL") or one.get("RELATIVE_MEDIA_URL")
                     or "", one.get("MIME_TYPE", ""),
                     one.get("TIME_ORIGIN") or "0")
             for one in root.iter("MEDIA_DESCRIPTOR")]
    header = root.find("HEADER")
    if header is not None and not media:  # before version 2.5
        media = [_Medium(header.get("MEDIA_FILE", ""), "", "0")]
    media = [one for one in media if one.address]
    media = [one for one in media if not (
        one.mime_type.startswith("audio")
        or one.address.lower().endswith(_SOUND))] or media
    if not media:
        return content.unnamed_video(file.path), 0.0
    chosen = media[0]
    if wanted := content.options.video:
        named = [one for one in media if video_names.is_same_video(
            video_names.parts_of(one.address), wanted)]
        if not named:
            content.remark(f"documents without the video {wanted!r}, left out",
                           file.name)
            return None
        chosen = named[0]
    elif len(media) > 1:
        content.remark("documents of several videos: the first is taken "
                       "(--video=NAME)", f"{file.name}: "
                       f"{video_names.parts_of(media[1].address)[-1]}")
    try:
        offset = int(chosen.origin) / 1000
    except ValueError as error:
        raise InputError(f"{file.name}: TIME_ORIGIN={chosen.origin!r} is no "
                         "number of milliseconds") from error
    video = content.video(chosen.address)
    if offset:
        content.remark("videos that are shifted (TIME_ORIGIN): times are "
                       "those of the file", f"{video[-1]} by {offset:g} s")
    return video, offset


def _slots(root: Element, file: File) -> dict[str, float | None]:
    """Returns the seconds of each time slot, None where it has none."""
    header = root.find("HEADER")
    units = "milliseconds" if header is None else header.get(
        "TIME_UNITS", "milliseconds")
    if units not in _UNITS:
        raise InputError(f"{file.name}: times in {units!r}, not in one of "
                         f"{', '.join(_UNITS)}")
    slots: dict[str, float | None] = {}
    for slot in root.iter("TIME_SLOT"):
        value = slot.get("TIME_VALUE")
        try:
            slots[slot.get("TIME_SLOT_ID", "")] = (
                None if value is None else int(value) * _UNITS[units])
        except ValueError as error:
            raise InputError(f"{file.name}: the time slot "
                             f"{slot.get('TIME_SLOT_ID')} has the time "
                             f"{value!r}") from error
    return slots


def _annotations(tier: Element) -> dict[str, _Annotation]:
    return {one.get("ANNOTATION_ID", ""): _Annotation(
        one.findtext("ANNOTATION_VALUE") or "",
        one.get("TIME_SLOT_REF1", ""), one.get("TIME_SLOT_REF2", ""),
        one.get("ANNOTATION_REF", ""))
        for holder in tier.findall("ANNOTATION") for one in holder}


def _depth(name: str, tiers: Mapping[str, Element]) -> int:
    depth = 0
    while name in tiers and depth < len(tiers):
        name, depth = tiers[name].get("PARENT_REF", ""), depth + 1
    return depth


def _spread(annotations: Mapping[str, _Annotation],
            slots: dict[str, float | None]) -> None:
    """Gives times to slots without one, evenly between those around them."""
    order = [one for one in annotations.values() if one.start]
    following = {one.start: one for one in order}
    for first in order:
        start = slots.get(first.start)
        if start is None:
            continue
        chain = [first]
        while slots.get(chain[-1].end) is None and len(chain) < len(order):
            after = following.get(chain[-1].end)
            if after is None:
                break
            chain.append(after)
        end = slots.get(chain[-1].end)
        if len(chain) > 1 and end is not None:
            for number, one in enumerate(chain[:-1], 1):
                slots[one.end] = start + (end - start) * number / len(chain)


def _times(one: _Annotation, by_id: Mapping[str, _Annotation],
           slots: Mapping[str, float | None]) -> tuple[float, float] | None:
    """Returns start and end, of the parent for a reference."""
    for _ in range(len(by_id)):
        if not one.parent:
            break
        if one.parent not in by_id:
            return None
        one = by_id[one.parent]
    start, end = slots.get(one.start), slots.get(one.end)
    return None if start is None or end is None else (start, end)


def _chosen(tiers: Mapping[str, Element],
            annotations: Mapping[str, Mapping[str, _Annotation]],
            content: Content, file: File) -> list[str]:
    """Returns the tiers to read, and remarks on those that are not."""
    options = content.options
    if options.tiers:
        chosen = [name for name in tiers if content.is_chosen("tiers", name)]
        if not chosen:
            content.remark("documents with none of the tiers of --tiers",
                           f"{file.path.name} has "
                           f"{', '.join(map(repr, tiers))}")
        return chosen
    chosen = []
    for name, tier in tiers.items():
        number = len(annotations[name])
        if not tier.get("PARENT_REF"):
            chosen.append(name)
        elif number and tier.get("LINGUISTIC_TYPE_REF") != _SCORE_TYPE:
            content.remark("dependent tiers, left out (--tiers=NAME)",
                           f"{name!r} with {number} annotations")
    for name in chosen if options.label_from == "value" else ():
        texts = [one.text.strip() for one in annotations[name].values()]
        if len(texts) >= _MANY and (
                len(set(texts)) >= _DIFFERENT * len(texts)) and (
                sum(text.count(" ") >= _BLANKS for text in texts)
                > len(texts) / 2):
            content.remark(
                "tiers whose values are nearly all different, as in free "
                "text: choose tiers (--tiers=NAME), or take their names as "
                "labels (--label_from=tier)",
                f"{name!r} with {len(set(texts))} values in {len(texts)} "
                "annotations")
    return chosen


def _label(one: _Annotation, tier_name: str, tier: Element, root: Element,
           content: Content) -> tuple[str, float | None]:
    """Returns the label of an annotation, and its score in a document of ours
    that has it behind the label."""
    if content.options.label_from == "tier":
        return tier_name, None
    if root.get("AUTHOR") == _AUTHOR and (
            tier.get("LINGUISTIC_TYPE_REF") == _OLD_TYPE):
        match = _OLD_VALUE.fullmatch(one.text.strip())
        if match and tier_name.startswith(match[1]):
            return match[1], float(match[2])
    if not one.text.strip():
        content.remark("annotations without a value, labeled by their tier",
                       f"{tier_name!r}")
        return tier_name, None
    return one.text, None


def _scores(root: Element, tiers: Mapping[str, Element],
            annotations: Mapping[str, Mapping[str, _Annotation]]
            ) -> dict[str, float]:
    """Returns the scores of annotations in a document of ours."""
    scores: dict[str, float] = {}
    for name, tier in tiers.items():
        if root.get("AUTHOR") == _AUTHOR and (
                tier.get("LINGUISTIC_TYPE_REF") == _SCORE_TYPE):
            for one in annotations[name].values():
                try:
                    scores[one.parent] = float(one.text)
                except ValueError:
                    continue
    return scores


def write(recordings: Sequence[Recording], folder: Path) -> dict[str, str]:
    """Returns a document (EAF 3.0) for each video, which lies in `folder`."""
    return {f"{one.video_id}.eaf": _document(one, folder)
            for one in recordings}


def _document(recording: Recording, folder: Path) -> str:
    """Returns a document whose values are labels; their scores are in a tier
    that depends on theirs.

    Annotations of one tier must not overlap, so tiers are numbered lanes,
    whatever the labels; a tier is no class.
    """
    add = ElementTree.SubElement
    root = Element("ANNOTATION_DOCUMENT", {
        "AUTHOR": _AUTHOR, "DATE": datetime.datetime.now(
            datetime.UTC).isoformat(timespec="seconds"),
        "FORMAT": "3.0", "VERSION": "3.0",
        "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
        "xsi:noNamespaceSchemaLocation":
            "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"})
    header = add(root, "HEADER", {"MEDIA_FILE": "",
                                  "TIME_UNITS": "milliseconds"})
    if (media := recording.media) is not None:
        add(header, "MEDIA_DESCRIPTOR", {
            "MEDIA_URL": media.absolute().as_uri(),
            "MIME_TYPE": mimetypes.guess_type(media.name)[0] or "unknown",
            "RELATIVE_MEDIA_URL": "./" + urllib.parse.quote(
                os.path.relpath(media, folder).replace(os.sep, "/"))})
    timed = recording.timed()
    add(header, "PROPERTY", {"NAME": "lastUsedAnnotationId"}
        ).text = str(2 * len(timed))
    slots = _add_slots(root, [one[1:] for one in timed])
    for lane, numbers in enumerate(lanes(timed), 1):
        name = f"actions {lane}"
        tier = add(root, "TIER", {"LINGUISTIC_TYPE_REF": _TYPE,
                                  "TIER_ID": name})
        scores = add(root, "TIER", {
            "LINGUISTIC_TYPE_REF": _SCORE_TYPE, "PARENT_REF": name,
            "TIER_ID": f"{name} score"})
        for number in numbers:
            row = timed[number][0]
            _add_value(tier, "ALIGNABLE_ANNOTATION", {
                "ANNOTATION_ID": f"a{2 * number + 1}",
                "TIME_SLOT_REF1": slots[2 * number],
                "TIME_SLOT_REF2": slots[2 * number + 1]}, row["label"])
            _add_value(scores, "REF_ANNOTATION", {
                "ANNOTATION_ID": f"a{2 * number + 2}",
                "ANNOTATION_REF": f"a{2 * number + 1}"},
                f"{row['score']:.4f}")
    add(root, "LINGUISTIC_TYPE", {
        "GRAPHIC_REFERENCES": "false", "LINGUISTIC_TYPE_ID": _TYPE,
        "TIME_ALIGNABLE": "true"})
    add(root, "LINGUISTIC_TYPE", {
        "CONSTRAINTS": "Symbolic_Association", "GRAPHIC_REFERENCES": "false",
        "LINGUISTIC_TYPE_ID": _SCORE_TYPE, "TIME_ALIGNABLE": "false"})
    for stereotype, description in _STEREOTYPES.items():
        add(root, "CONSTRAINT", {"DESCRIPTION": description,
                                 "STEREOTYPE": stereotype})
    ElementTree.indent(root)
    return ('<?xml version="1.0" encoding="UTF-8"?>\n'
            + ElementTree.tostring(root, encoding="unicode") + "\n")


def _add_slots(root: Element, times: Sequence[tuple[int, int]]) -> list[str]:
    """Adds two slots for each annotation, by time as ELAN requires; returns
    their ids in the order of the annotations."""
    order = ElementTree.SubElement(root, "TIME_ORDER")
    moments = [moment for pair in times for moment in pair]
    ids = [""] * len(moments)
    for index, place in enumerate(sorted(range(len(moments)),
                                         key=moments.__getitem__), 1):
        ids[place] = f"ts{index}"
        ElementTree.SubElement(order, "TIME_SLOT", {
            "TIME_SLOT_ID": ids[place], "TIME_VALUE": str(moments[place])})
    return ids


def _add_value(tier: Element, tag: str, attributes: dict[str, str],
               text: str) -> None:
    annotation = ElementTree.SubElement(ElementTree.SubElement(
        tier, "ANNOTATION"), tag, attributes)
    ElementTree.SubElement(annotation, "ANNOTATION_VALUE").text = (
        _NOT_XML.sub(" ", one_line(text)))
