"""Folders of finished runs, made by hand, for tests of what joins them."""

import json


def two_actions_each(folder):
    """Writes annotations of three videos a subset; returns their entries."""
    entries = {
        f"{subset}{number}": {
            "subset": subset, "duration": 10.0, "annotations": [
                {"label": "hop", "segment": [1.0, 2.0]},
                {"label": "hop", "segment": [5.0, 7.0]}]}
        for subset in ("val", "testing") for number in range(3)}
    (folder / "annotations.json").write_text(json.dumps({"database": entries}))
    return entries


def finished_run(folder, annotations, num_detected, seconds, trained=1234567,
                 subset="val"):
    """Writes a run that detects `num_detected` of each video's actions."""
    for place, name in ((folder, subset), (folder / "test", "testing")):
        place.mkdir(parents=True)
        results = {
            video: [{"segment": one["segment"], "label": one["label"],
                     "score": 0.9}
                    for one in entry["annotations"][:num_detected]]
            for video, entry in annotations.items()
            if entry["subset"] == name}
        (place / "predictions.json").write_text(json.dumps(
            {"results": results}))
        (place / "map.json").write_text(json.dumps(
            {"average_map": num_detected / 2 - 0.01 * (name == "testing")}))
    (folder / "config.json").write_text(json.dumps({
        "data": {"annotations": str(folder.parents[1] / "annotations.json"),
                 "tfds": "", "on_outside": "error", "class_names": "",
                 "train_subset": "train", "test_subset": subset,
                 "reviews": ""},
        "evaluate": {"tiou_thresholds": [0.5]}}))
    (folder / "cost.json").write_text(json.dumps({
        "trained_parameters": trained, "step_temporary_bytes": 3 * 2**20}))
    (folder / "metrics.jsonl").write_text("".join(
        json.dumps({"step": step, **one}) + "\n" for step, one in enumerate(
            [{"loss": 1.0}, *({"seconds_per_step": s} for s in seconds)])))
