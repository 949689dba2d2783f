"""Makes the annotations of `losa_jax.main` from what was read."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from losa_jax.data.annotations.split import SIDES, group_of, one_sided, split
from losa_jax.data.annotations.tools.read import Reading
from losa_jax.data.annotations.tools.video_names import video_ids
from losa_jax.errors import InputError, counted, listed
from losa_jax.utils.text_files import read_json

_DIGITS = 6  # of seconds
# Marks the files that `to_database` made.
VERSION = "losa_jax"


def to_database(reading: Reading, *, group: str = "", share: float = 0.2,
                seed: int = 0, resplit: bool = False,
                known: Mapping[str, str] | None = None
                ) -> tuple[dict[str, Any], list[str]]:
    """Returns the "database" of the ActivityNet layout, and lines about the
    split that is made where no video has a subset, or with `resplit` (see
    `split`)."""
    ids = video_ids(reading.videos)
    entries: dict[str, dict[str, Any]] = {}
    for name, facts in reading.videos.items():
        entry = entries.setdefault(ids[name], {})
        for key, value in (("file", name if name != ids[name] else ""),
                           ("subset", "" if resplit else facts.subset),
                           ("duration", facts.duration_seconds),
                           ("fps", facts.fps)):
            if value and not entry.get(key):
                entry[key] = value
        entry.setdefault("annotations", [])
    for action in reading.actions:
        row: dict[str, Any] = {"label": action.label, "segment": [
            round(action.start_seconds, _DIGITS),
            round(action.end_seconds, _DIGITS)]}
        if action.score is not None:
            row["score"] = action.score
        entries[ids[action.video]]["annotations"].append(row)
    lines = _add_subsets(entries, group, share, seed, known or {})
    return {"version": VERSION, "database": {
        name: entries[name] for name in sorted(entries)}}, lines


def earlier_split(path: Path) -> dict[str, str]:
    """Returns {video id: side} of a file that `to_database` made, {} if there
    is none or its subsets are not ours."""
    if not path.is_file():
        return {}
    content = read_json(path, "remove it, or choose another --output")
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise InputError(f"{path}: exists and holds no annotations: choose "
                         "another --output")
    sides = {name: entry.get("subset") for name, entry in database.items()
             if isinstance(entry, dict)}
    return {name: side for name, side in sides.items() if side in SIDES}


def _add_subsets(entries: Mapping[str, dict[str, Any]], group: str,
                 share: float, seed: int, known: Mapping[str, str]
                 ) -> list[str]:
    """Adds the missing subsets; returns lines about them."""
    missing = [name for name, entry in entries.items()
               if not entry.get("subset")]
    if missing and len(missing) < len(entries):
        raise InputError(
            f"{len(missing)} of {len(entries)} videos have no subset, as the "
            f"others have:{listed(sorted(missing), 5)}\nAdd it, or make a "
            "new split of all with --resplit")
    groups = len({group_of(name, group) for name in entries})
    if missing:
        labels = {name: [row["label"] for row in entry["annotations"]]
                  for name, entry in entries.items()}
        sides = split(labels, group=group, share=share, seed=seed,
                      known=known)
        for name, side in sides.items():
            entries[name]["subset"] = side
    counts = Counter(entry["subset"] for entry in entries.values())
    actions: dict[str, int] = defaultdict(int)
    for entry in entries.values():
        actions[entry["subset"]] += len(entry["annotations"])
    how = ""
    if missing:
        how = f", split with --seed={seed}" + (
            f" by --group={group} ({counted(groups, 'group')})" if group
            else " by video")
        kept = sum(name in known for name in entries)
        how += f"; {counted(kept, 'video')} as before" if kept else ""
    lines = ["subsets: " + ", ".join(
        f"{name} ({counted(count, 'video')}, "
        f"{counted(actions[name], 'action')})"
        for name, count in sorted(counts.items())) + how]
    if not missing:
        return lines if len(counts) > 1 else [
            f"{lines[0]}: the only one; --resplit makes a split"]
    for side in SIDES:
        names = [label for label, one in one_sided(labels, sides).items()
                 if one == side]
        if names:
            lines.append(f"  classes in {side} only: {len(names)}, as "
                         f"{', '.join(map(repr, names[:5]))}")
    return lines
