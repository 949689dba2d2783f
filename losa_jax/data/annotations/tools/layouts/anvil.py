"""ANVIL's annotation files: elements with attributes in tracks."""

from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File

TITLE = "ANVIL"


def recognizes(file: File) -> bool:
    """Whether this is an ANVIL document."""
    return (file.xml is not None and file.xml.tag == "annotation"
            and file.xml.find("body") is not None)


def read(file: File, content: Content) -> None:
    """Reads the elements of primary tracks; the label is the chosen
    attribute, else the first, else the name of the track."""
    options = content.options
    assert file.xml is not None
    address = next((one.get("src", "") for one in sorted(
        file.xml.iter("video"), key=lambda one: one.get("master") != "true")
        if one.get("src")), "")
    video = (content.video(address) if address
             else content.unnamed_video(file.path))
    for track in file.xml.iter("track"):
        name = track.get("name", "")
        if not content.is_chosen("tiers", name):
            continue
        elements = track.findall("el")
        if track.get("type", "primary") != "primary":
            content.remark("tracks without times of their own, left out",
                           f"{name!r} with {len(elements)} elements")
            continue
        for element in elements:
            values = {one.get("name", ""): (one.text or "").strip()
                      for one in element.iter("attribute")}
            where = f"{file.name}, {element.get('index')} of track {name!r}"
            if not content.is_chosen("attribute", *values):
                content.remark(f"elements without the attribute "
                               f"{options.attribute!r}, left out", where)
                continue
            if len(values) > 1 and not options.attribute:
                content.remark("elements with several attributes: the first "
                               "is the label (--attribute=NAME)", where)
            label = values.get(options.attribute) or next(
                iter(values.values()), "") or name
            try:
                times = (float(element.get("start", "")),
                         float(element.get("end", "")))
            except ValueError:
                content.problems.append(f"{where}: needs start and end in "
                                        "seconds")
                continue
            content.add(video, name if options.label_from == "tier"
                        else label, *times, where=where)
