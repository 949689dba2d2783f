"""Reads the tables of EPIC-KITCHENS-100 and EPIC-SOUNDS.

    EPIC-KITCHENS-100   EPIC_100_train.csv,EPIC_100_validation.csv,
                        EPIC_100_video_info.csv,EPIC_100_verb_classes.csv
    EPIC-SOUNDS         EPIC_Sounds_train.csv,EPIC_Sounds_validation.csv,
                        EPIC_100_video_info.csv

The table of classes decides what is detected: that of verbs or that of nouns;
with both, a class is a pair of verb and noun. The frame rates of the videos are
not taken: features are of copies with 30 frames a second, and of a video its
file tells.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from losa_jax.data.annotations import other_files
from losa_jax.data.annotations.tables import read_table, subset_of
from losa_jax.errors import InputError
from losa_jax.utils.text_files import read_text

# Columns of a table of segments, of the durations, and of a list of classes.
SEGMENTS = {"video_id", "start_timestamp", "stop_timestamp"}
_SOUNDS = {"class", "class_id"}
_DURATIONS = {"video_id", "duration", "fps"}
_CLASSES = {"id", "key", "instances"}
# Numbers of classes of the detection challenge.
NUM_CLASSES = {"verb": 97, "noun": 300}
# A larger share of segments whose verb, or noun, the list of classes has
# elsewhere is that of another version.
_MOST_MISPLACED = 0.05


def is_table(path: Path) -> bool:
    """Returns whether a file has the columns of one of the tables."""
    columns = set(other_files.columns(read_text(path)))
    return any(columns >= some for some in (SEGMENTS, _DURATIONS, _CLASSES))


@dataclasses.dataclass(frozen=True)
class EpicTables:
    """The tables of one list of files, by what they hold."""

    segments: tuple[Path, ...]
    durations: Path
    classes: Mapping[str, Path]  # of "verb", "noun" or both

    @classmethod
    def of(cls, paths: Sequence[Path]) -> "EpicTables":
        """Tells the tables apart by their columns; InputError for one that is
        none, or that is missing."""
        segments: list[Path] = []
        durations: list[Path] = []
        classes: dict[str, Path] = {}
        for path in paths:
            columns = set(other_files.columns(read_text(path)))
            if columns >= SEGMENTS:
                segments.append(path)
            elif columns >= _DURATIONS:
                durations.append(path)
            elif columns >= _CLASSES and (
                    word := next((one for one in NUM_CLASSES
                                  if one in path.stem.lower()), "")):
                classes[word] = path
            else:
                raise InputError(
                    f"{path}: is no table of segments, of durations "
                    "(EPIC_100_video_info.csv), or of classes of version 100 "
                    "(EPIC_100_verb_classes.csv, EPIC_100_noun_classes.csv)")
        if len(durations) != 1 or not segments:
            raise InputError(
                f"{paths[0]}: give one or more tables of segments "
                "(EPIC_100_validation.csv) and, once, EPIC_100_video_info.csv, "
                "which has the durations, with commas between them")
        # A pair is named verb first, whatever the order of the files.
        return cls(tuple(segments), durations[0], {
            word: classes[word] for word in NUM_CLASSES if word in classes})

    @property
    def targets(self) -> tuple[str, ...]:
        """What can be detected: "verb", "noun", and with both "action"."""
        return (*self.classes, *(("action",) if len(self.classes) > 1 else ()))

    def only(self, target: str) -> str:
        """Returns the list of files, as `--annotations` has it, of one of the
        targets."""
        classes = (self.classes.values() if target == "action"
                   else [self.classes[target]])
        return ",".join(map(str, (*self.segments, self.durations, *classes)))

    def names(self) -> dict[str, tuple[str, ...]]:
        """Reads the names of verbs, nouns or both, in the order of their
        numbers; InputError for a list of another version."""
        return {word: tuple(key for key, _ in _read_classes(path, word))
                for word, path in self.classes.items()}


def action_label(verb: str, noun: str) -> str:
    """Returns the class of a pair: "take plate"."""
    return f"{verb} {noun}"


def action_number(verb: int, noun: int) -> int:
    """Returns the challenge's number of a pair."""
    return verb * NUM_CLASSES["noun"] + noun


def submission_labels(names: Mapping[str, Sequence[str]]
                      ) -> dict[str, Callable[[Mapping[str, Any]], str]]:
    """Returns, for verb, noun and action, the function from a row of a
    submission to the challenge to its class.

    Rows have the numbers "verb" and "noun", and "action" as "v,n".
    """
    def name(word: str, number: Any) -> str:
        try:
            place = int(number) if type(number) in (int, str) else -1
        except ValueError:
            place = -1
        if not 0 <= place < len(names[word]):
            raise InputError(f"{word} {repr(number)[:40]} is not a number "
                             f"from 0 to {len(names[word]) - 1}")
        return names[word][place]

    def action(row: Mapping[str, Any]) -> str:
        verb, comma, noun = str(row.get("action")).partition(",")
        if not comma:
            raise InputError(f"action {repr(row.get('action'))[:40]} is not "
                             "\"verb,noun\", as \"3,12\"")
        return action_label(name("verb", verb), name("noun", noun))

    return {"verb": lambda row: name("verb", row.get("verb")),
            "noun": lambda row: name("noun", row.get("noun")),
            "action": action}


def read_epic(paths: Sequence[Path]) -> dict[str, Any]:
    """Returns the database of the tables of one list of files."""
    tables = EpicTables.of(paths)
    durations: dict[str, float] = {}
    for where, row in read_table(tables.durations, ("video_id",),
                                 ("duration",)):
        video, seconds = row["video_id"], row["duration"]
        if durations.get(video, seconds) != seconds:
            raise InputError(f"{where}: the video {video} is there twice, with "
                             "two durations: remove one of its rows")
        durations[video] = seconds
    classes = {word: _read_classes(path, word)
               for word, path in tables.classes.items()}
    database: dict[str, Any] = {}
    for path in tables.segments:
        subset = subset_of(path)
        columns = set(other_files.columns(read_text(path)))
        sounds = not columns.isdisjoint(_SOUNDS)
        if sounds and classes:
            raise InputError(f"{path}: has classes of sounds: leave out "
                             f"{', '.join(map(str, tables.classes.values()))}")
        if not (sounds or classes):
            raise InputError(
                f"{path}: give the list of classes to detect, behind a comma: "
                "EPIC_100_verb_classes.csv, EPIC_100_noun_classes.csv or both")
        # Of the test set only the times are published.
        has_classes = sounds or subset != "testing" or any(
            f"{word}_class" in columns for word in classes)
        needed = SEGMENTS | (_SOUNDS if sounds else {
            f"{word}_class" for word in classes} if has_classes else set())
        misplaced = rows = 0
        for where, row in read_table(path, tuple(sorted(needed))):
            video = row["video_id"]
            if video not in durations:
                raise InputError(f"{where}: the video {video} is not in "
                                 f"{tables.durations}: give the tables of one "
                                 "version")
            entry = database.setdefault(video, {
                "subset": subset, "duration": durations[video],
                "annotations": []})
            if entry["subset"] != subset:
                raise InputError(f"{where}: the video {video} is of the "
                                 f"subset {entry['subset']} too: give each "
                                 "table once")
            segment = [_seconds(row, name, where)
                       for name in ("start_timestamp", "stop_timestamp")]
            if not has_classes:
                continue
            if sounds:
                label = row["class"]
                number = _number(row, "class_id", where)
            else:
                numbers = {word: _number(row, f"{word}_class", where,
                                         len(classes[word]))
                           for word in classes}
                keys = {word: classes[word][number]
                        for word, number in numbers.items()}
                rows += 1
                misplaced += any(
                    word in columns and repr(row[word]) not in instances
                    for word, (_, instances) in keys.items())
                label = " ".join(key for key, _ in keys.values())
                number = (action_number(**numbers) if len(numbers) > 1
                          else next(iter(numbers.values())))
            entry["annotations"].append(
                {"label": label, "label_id": number, "segment": segment})
        if misplaced > _MOST_MISPLACED * rows:
            raise InputError(
                f"{path}: {misplaced} of {rows} segments have a word that "
                f"{' or '.join(map(str, tables.classes.values()))} has under "
                "another class: give the lists of classes of this version")
    return database


def _read_classes(path: Path, word: str) -> list[tuple[str, str]]:
    """Returns name and words of each class, in the order of the numbers."""
    rows = [row for _, row in read_table(path, ("key",), ("id",))]
    if [row["id"] for row in rows] != [*range(len(rows))]:
        raise InputError(f"{path}: its ids do not count up from 0")
    if len(rows) > NUM_CLASSES[word]:
        raise InputError(
            f"{path}: lists {len(rows)} classes of {word}s, the challenge has "
            f"{NUM_CLASSES[word]}: give EPIC_100_{word}_classes.csv, not "
            "another version")
    names = [row["key"] for row in rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path}: has {', '.join(twice[:5])} as the name of "
                         "two classes: copy the file again")
    return [(row["key"], row["instances"] or "") for row in rows]


def _number(row: Mapping[str, Any], name: str, where: str,
            count: int | None = None) -> int:
    text = str(row[name])
    if not text.isdecimal() or (count is not None and int(text) >= count):
        raise InputError(
            f"{where}: {name}={text!r} is no class"
            + (f" of a list of {count}: give the lists of classes of this "
               "version" if count is not None else ""))
    return int(text)


def _seconds(row: Mapping[str, Any], name: str, where: str) -> float:
    """Returns the seconds of hh:mm:ss.ss."""
    try:
        hours, minutes, seconds = map(float, row[name].split(":"))
        # Seconds may be rounded up to 60.
        if not (0 <= hours < math.inf and 0 <= minutes < 60
                and 0 <= seconds <= 60):
            raise ValueError
    except ValueError as error:
        raise InputError(f"{where}: {name}={row[name]!r} is not hh:mm:ss.ss: "
                         "correct it, or copy the file again") from error
    return round(3600 * hours + 60 * minutes + seconds, 6)
