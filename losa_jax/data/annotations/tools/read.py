"""Reads files and folders of annotation tools to videos and actions."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from losa_jax.data.annotations.tools import tables, video_names
from losa_jax.data.annotations.tools.content import (
    Action,
    Content,
    Moment,
    Options,
    Video,
)
from losa_jax.data.annotations.tools.file import File, open_file
from losa_jax.data.annotations.tools.layouts import (
    LAYOUTS,
    is_companion,
    layout_of,
    own_table,
)
from losa_jax.data.annotations.tools.video_names import Parts
from losa_jax.errors import InputError, counted, listed
from losa_jax.utils.names import VIDEO_ENDINGS

# Endings of files that are opened in a folder.
_ENDINGS = frozenset(
    ".eaf .anvil .xml .boris .gz .json .csv .tsv .txt .srt .vtt .textgrid .opf "
    ".zip".split())
_IN_ARCHIVES = (".xml", ".json")
_SPREADSHEETS = ("/xl/workbook.xml", "/content.xml")


class NoAnnotationsError(InputError):
    """No file is of an annotation tool; `tables` says what is wrong with those
    that may hold annotations."""

    def __init__(self, message: str, tables: Sequence[str]):
        super().__init__(message + (listed(tables, 3) if tables else ""))
        self.tables = tables


class NamedAction(NamedTuple):
    """An action of a video by the name that is shown."""

    video: str
    label: str
    start_seconds: float
    end_seconds: float
    score: float | None


class Reading(NamedTuple):
    """What files hold together.

    Attributes:
      layouts: {layout: number of files}.
      videos: facts by name, those without actions too.
      actions: in order of video, start, end and label.
      points, open: (video, label, seconds) of moments, and of starts without
        an end, whether they became actions or not.
      remarks: {sentence: examples} of what was left out, cut or assumed.
    """

    layouts: dict[str, int]
    videos: dict[str, Video]
    actions: list[NamedAction]
    points: list[tuple[str, str, float]]
    open: list[tuple[str, str, float]]
    remarks: dict[str, list[str]]

    def summary(self) -> str:
        """Returns one line of what was read, and one for each remark."""
        title = ", ".join(LAYOUTS[name].TITLE for name in self.layouts)
        classes = len({one.label for one in self.actions})
        line = (f"{title}: {counted(sum(self.layouts.values()), 'file')}, "
                f"{counted(len(self.videos), 'video')}, "
                f"{counted(len(self.actions), 'action')} of "
                f"{counted(classes, 'class', 'classes')}")
        return "\n".join([line, *(
            f"  {sentence}: {len(examples)}" + (
                f", as {examples[0]}" if examples[0] else "")
            for sentence, examples in self.remarks.items())])


def read_annotations(paths: Sequence[Path], options: Options, *,
                     skipped: Sequence[Path] = ()) -> Reading:
    """Reads files and folders of one layout, but for the files and folders
    `skipped` in a folder; InputError for wrong entries, several layouts, or
    nothing that is an action."""
    content = Content(options)
    chosen: dict[str, list[File]] = defaultdict(list)
    unknown: list[str] = []
    for path in paths:
        for file in _files(path, options, content, skipped):
            name = _layout(file, options, is_alone=file.name == str(path))
            if name:
                chosen[name].append(file)
            elif not is_companion(file):
                content.remark("files in no known layout, left out",
                               file.name)
                if own_table.is_table(file):
                    unknown.append(f"{file.name}: {_unknown(file)}")
    if len(chosen) > 1:
        counts = ", ".join(
            f"{name} ({counted(len(files), 'file')}, as {files[0].name})"
            for name, files in chosen.items())
        raise InputError(f"{paths[0]}: files of several layouts: {counts}: "
                         "choose one with --format=NAME")
    if not chosen:
        raise NoAnnotationsError(
            f"{', '.join(map(str, paths))}: no file of an annotation tool: "
            "give files or folders of "
            f"{', '.join(one.TITLE for one in LAYOUTS.values())}", unknown)
    files_of: dict[Parts, str] = {}
    for name, files in chosen.items():
        for file in files:
            part = Content(options)
            try:
                LAYOUTS[name].read(file, part)
            except InputError as error:
                if file.name in str(error):
                    raise
                raise InputError(f"{file.name}: {error}") from error
            except (LookupError, TypeError, ValueError, AttributeError,
                    OverflowError) as error:
                raise InputError(
                    f"{file.name}: not as {LAYOUTS[name].TITLE} writes it "
                    f"({error!r}): correct or export it again") from error
            _join(part, content, file, files_of)
    _refuse_choices(content, paths, ", ".join(
        LAYOUTS[name].TITLE for name in chosen))
    if content.problems:
        raise InputError(f"{paths[0]}: {len(content.problems)} wrong entries:"
                         f"{listed(content.problems)}\nCorrect the file")
    return _resolved(content, {name: len(files)
                               for name, files in chosen.items()}, paths)


def _files(path: Path, options: Options, content: Content,
           skipped: Sequence[Path]) -> Iterator[File]:
    """Yields the file, or those of a folder that may be annotations."""
    others = {one.resolve() for one in skipped}
    if not path.exists() and not path.is_symlink():
        raise InputError(f"{path}: no such file or folder: check the path, "
                         "which is relative to the current folder")
    if not path.is_dir():
        yield from _unpacked(open_file(path, options.encoding))
        return
    for one in sorted(path.rglob("*")):
        if one.is_dir() or not others.isdisjoint(
                (one.resolve(), *one.resolve().parents)):
            continue
        if one.suffix.lower() not in _ENDINGS or one.name.startswith((
                ".", "~$")):
            if one.suffix.lower() not in VIDEO_ENDINGS:
                content.remark("files of other types, not opened", one.name)
            continue
        yield from _unpacked(open_file(one, options.encoding))


def _unpacked(file: File) -> Iterator[File]:
    """Yields a file, or the annotations in an archive."""
    if not file.is_archive or layout_of(file):
        yield file
        return
    if file.members(*_SPREADSHEETS):
        raise InputError(f"{file.name}: a table of Excel or LibreOffice: save "
                         "it as CSV in UTF-8")
    members = file.members(*_IN_ARCHIVES)
    if not members:
        raise InputError(f"{file.name}: a zip file without annotations: "
                         "unpack it, and give the files")
    yield from members


def _layout(file: File, options: Options, *, is_alone: bool) -> str:
    """Returns the layout of a file; "" for a file of a folder in none."""
    if options.layout:
        if options.layout not in LAYOUTS:
            raise InputError(f"--format={options.layout}: choose one of "
                             f"{', '.join(LAYOUTS)}")
        is_right = is_alone or LAYOUTS[options.layout].recognizes(file)
        return options.layout if is_right else ""
    name = layout_of(file)
    if not name and not file.content.strip():
        raise InputError(f"{file.name}: is empty: it may still be written, or "
                         "was copied in part: save or export it again")
    if not name and own_table.is_table(file) and options.columns:
        name = "table"
    if not name and is_alone:
        raise InputError(f"{file.name}: {_unknown(file)}")
    return name


def _unknown(file: File) -> str:
    if is_companion(file):
        return ("explains annotations and holds none: give the annotations, "
                "with this file as --companion")
    table = None if file.json is not None else tables.read_table(file.text)
    if table is not None and len(table.columns) > 1:
        return ("a table whose columns are not known: name them, as "
                "--columns=video=File,label=Class,start=Begin,end=End; it has "
                + ", ".join(table.columns[:20]))
    titles = ", ".join(one.TITLE for one in LAYOUTS.values())
    return f"in no known layout of annotations; known are {titles}"


def _refuse_choices(content: Content, paths: Sequence[Path], title: str
                    ) -> None:
    """InputError for names that the user chose and that no file has."""
    for flag in ("tiers", "subject", "annotator", "attribute"):
        offered = content.offered.get(flag, {})
        for wanted in content.options.chosen(flag):
            missing = [] if wanted in offered else [
                name for name in wanted.split(",") if name not in offered]
            if missing and not offered:
                raise InputError(f"{paths[0]}: --{flag}={wanted}: {title} has "
                                 "nothing here for this flag: leave it out")
            if missing:
                raise InputError(
                    f"{paths[0]}: --{flag}: nothing is named "
                    f"{', '.join(map(repr, missing))}: choose among"
                    f"{listed([repr(name) for name in offered])}")


def _join(part: Content, content: Content, file: File,
          files_of: dict[Parts, str]) -> None:
    """Adds the content of one file to that of all."""
    for video, facts in part.videos.items():
        known = content.videos.setdefault(video, facts)
        if facts.subset and known.subset not in ("", facts.subset):
            content.problems.append(f"{file.name}: the video {video[-1]} is "
                                    f"in the subsets {known.subset} and "
                                    f"{facts.subset}")
        known.complete(facts)
        if video in files_of:
            content.remark("videos in several files, whose actions are joined",
                           f"{video[-1]} in {files_of[video]} and "
                           f"{file.path.name}")
        files_of[video] = file.path.name
    content.actions += part.actions
    content.points += part.points
    content.open += part.open
    content.problems += part.problems
    content.unreviewed += part.unreviewed
    for flag, names in part.offered.items():
        content.offered.setdefault(flag, {}).update(names)
    for sentence, examples in part.remarks.items():
        for example in examples:
            content.remark(sentence, example)


def _resolved(content: Content, layouts: dict[str, int],
              paths: Sequence[Path]) -> Reading:
    """Names the videos, and makes actions of moments if the user says so."""
    names = video_names.shown_names(content.videos)
    # Two paths are one video where one of them is the end of the other.
    videos: dict[str, Video] = {}
    for parts, facts in content.videos.items():
        videos.setdefault(names[parts], facts).complete(facts)
    for name in sorted(set(names.values())):
        if "/" in name and any(parts[-1] != name for parts, one
                               in names.items() if one == name):
            content.remark("videos of one name in different folders: their "
                           "folder is kept in the name", name)
    added = [*_from_points(content), *_from_open(content, names, videos)]
    actions = [NamedAction(names[one.video], *one[1:])
               for one in (*content.actions, *added)]
    if not actions:
        _refuse_nothing(content, paths)
    return Reading(
        layouts, dict(sorted(videos.items())), _without_doubles(
            actions, content),
        [(names[one.video], *one[1:]) for one in content.points],
        [(names[one.video], *one[1:]) for one in content.open],
        content.remarks)


def _refuse_nothing(content: Content, paths: Sequence[Path]) -> None:
    if content.points:
        raise InputError(
            f"{paths[0]}: only points, no actions: {len(content.points)} "
            f"moments, as {_shown(content.points[0])}; give their length in "
            "seconds, as --points=2")
    if content.unreviewed:
        raise InputError(
            f"{paths[0]}: predictions that nobody reviewed, not annotations: "
            "they are taken as labels with --unreviewed=keep")
    if content.open:
        raise InputError(
            f"{paths[0]}: only starts without an end, as "
            f"{_shown(content.open[0])}: give their length with "
            "--open_events=SECONDS, or --open_events=end")
    if not content.videos:
        reasons = [f"{sentence}: {len(examples)}"
                   for sentence, examples in content.remarks.items()]
        raise InputError(f"{paths[0]}: holds no video" + (
            f", because of{listed(reasons)}" if reasons else ""))
    content.remark("files without any action", str(paths[0]))


def _shown(one: Moment) -> str:
    return f"{one.label!r} at {one.seconds:g} s of {one.video[-1]}"


def _from_points(content: Content) -> list[Action]:
    seconds = content.options.points
    for one in content.points if seconds is None else ():
        content.remark("points (moments without a length), left out "
                       "(--points=SECONDS makes actions of them)",
                       _shown(one))
    return [] if seconds is None else [
        Action(one.video, one.label, max(0.0, one.seconds - seconds / 2),
               one.seconds + seconds / 2) for one in content.points]


def _from_open(content: Content, names: dict[Parts, str],
               videos: dict[str, Video]) -> list[Action]:
    length = content.options.open_events
    actions = []
    for one in content.open:
        end: float | None
        if isinstance(length, float):
            end = one.seconds + length
        else:
            name = names[one.video]
            end = length and (content.options.video_seconds(name)
                              or videos[name].duration_seconds) or None
        if length == "end" and end is None:
            content.remark("actions that never end, in videos of unknown "
                           "length, left out (give --videos=FOLDER)",
                           _shown(one))
        elif end is None or end <= one.seconds:
            content.remark("actions that never end, left out (--open_events="
                           "SECONDS, or end: until the end of the video)",
                           _shown(one))
        else:
            actions.append(Action(one.video, one.label, one.seconds, end))
    return actions


def _without_doubles(actions: list[NamedAction], content: Content
                     ) -> list[NamedAction]:
    actions = sorted(actions, key=lambda one: (
        one.video, one.start_seconds, one.end_seconds, one.label))
    counts = Counter((one.video, one.label, round(one.start_seconds, 6),
                      round(one.end_seconds, 6)) for one in actions)
    kept = []
    for one in actions:
        key = (one.video, one.label, round(one.start_seconds, 6),
               round(one.end_seconds, 6))
        if counts[key] > 0:
            kept.append(one)
            if counts[key] > 1:
                content.remark("actions that are there several times, kept "
                               "once", f"{one.label!r} at "
                               f"{one.start_seconds:g} s of {one.video}")
            counts[key] = 0
    return kept
