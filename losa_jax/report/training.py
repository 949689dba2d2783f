"""The page of a training run, from what its folder holds."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from losa_jax.errors import InputError
from losa_jax.report.charts import (
    LEFT,
    RIGHT,
    WIDTH,
    Thinned,
    bar_chart,
    line_chart,
    number,
    thin,
)
from losa_jax.report.document import escape, make_document, write_page
from losa_jax.report.tables import map_table, tiles
from losa_jax.utils.run_files import METRICS_FILE

PAGE_FILE = "training.html"


class _Chart(NamedTuple):
    """Metrics that share a chart.

    Attributes:
      title: with the unit.
      names: {metric: its name in the chart}.
      best: of the first metric, named below the title.
      may_be_log: see `line_chart`.
    """

    title: str
    names: dict[str, str]
    best: str = "lowest"
    may_be_log: bool = False


_CHARTS = (
    _Chart("Loss", {"loss": "total", "classification_loss": "classification",
                    "regression_loss": "regression"}, may_be_log=True),
    _Chart("Average mAP, %", {"map": "average mAP"}, "highest"),
    _Chart("Learning rate", {"learning_rate": "learning rate"}, "highest"),
    _Chart("Norm of the gradient", {"gradient_norm": "norm"}, "highest",
           may_be_log=True),
    _Chart("Points with an action", {"positive_points": "points"}),
    _Chart("Seconds a step", {"seconds_per_step": "seconds"},
           may_be_log=True),
    _Chart("Waiting for data, share of the time",
           {"data_wait_share": "share"}, "highest"),
    _Chart("Peak memory, GiB", {"host_memory_gib": "process",
                                "device_memory_gib": "first device"},
           "highest"),
)
_GATES = (
    ("gate/short/", "Short-range gates", "mean absolute gate of a block"),
    ("gate/long/", "Long-range gates", "mean absolute gate of a block"),
    ("added/short/", "What the short range adds",
     "root mean square of the gated up-projection"),
    ("added/long/", "What the long range adds",
     "root mean square of the gated up-projection"),
)

Series = dict[str, list[tuple[float, float]]]


def read_metrics(path: Path) -> Series:
    """{metric: [(step, value), ...]} of a metrics file.

    Half a line (a run that was killed, or writes right now) and values that
    are not finite are passed over.

    Raises:
      InputError: no file, or no metric in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); name the "
                         "folder of a run, which holds it") from error
    series: Series = {}
    for line in lines:
        try:
            entry = json.loads(line)
            step = float(entry.pop("step"))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        for name, value in entry.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                series.setdefault(name, []).append((step, value))
    if not series:
        raise InputError(f"{path}: holds no metric yet; start the page again "
                         "when the run has logged its first steps")
    return series


def write_training_page(workdir: Path, output: Path | None = None) -> Path:
    """Writes the page of a run: curves, gates, table of mAP, settings.

    Args:
      workdir: of a run, finished or not.
      output: the HTML file; None for training.html in `workdir`.

    Returns:
      the file.

    Raises:
      InputError: the folder holds no metrics.
    """
    if not workdir.is_dir():
        raise InputError(f"{workdir}: no such folder; name that of a run")
    series = read_metrics(workdir / METRICS_FILE)
    config, cost, scores = (_read(workdir / f"{name}.json")
                            for name in ("config", "cost", "map"))
    output = output or workdir / PAGE_FILE
    title = str(workdir.resolve().name)
    drawn: list[list[Thinned]] = []
    charts = _curves(series, drawn)
    gates = _gates(series, drawn)
    parts = [f'<dl class="tiles">{_tiles(series, cost)}</dl>',
             _section("Curves", charts)]
    if gates:
        parts.append(_section("What LoSA learned to use", gates))
    if scores:
        parts.append('<section class="card panel"><h2>mAP of the best '
                     f"checkpoint, %</h2>{map_table(scores)}</section>")
    if config:
        parts.append(_settings(config))
    write_page(output, make_document(
        "training.html", title=title, styles=("base.css", "charts.css"),
        scripts=("theme.js", "charts.js"),
        content={"facts": _facts(series, config), "parts": "".join(parts)},
        data={"width": WIDTH, "left": LEFT, "right": RIGHT, "charts": [
            [[point[:2] for point in one.points] for one in chart]
            for chart in drawn]}))
    return output


def _read(path: Path) -> dict[str, Any]:
    """A file of the run that may not be there yet."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); delete it, the "
                         "page does without") from error
    return content if isinstance(content, dict) else {}


def _section(title: str, charts: Iterable[str]) -> str:
    return (f'<h2 class="part">{escape(title)}</h2><div class="charts">'
            f'{"".join(charts)}</div>')


def _curves(series: Series, drawn: list[list[Thinned]]) -> list[str]:
    """Charts of all but the gates; those that we do not know stand last."""
    left = {name for name in series
            if not name.startswith(("gate/", "added/"))}
    charts = []
    for chart in _CHARTS:
        here = {label: series[name] for name, label in chart.names.items()
                if name in left}
        left -= set(chart.names)
        if here:
            pick = max if chart.best == "highest" else min
            step, best = pick(next(iter(here.values())),
                              key=lambda point: point[1])
            charts.append(_chart(
                chart.title, here, drawn,
                f"{chart.best} {number(best)} at step {step:,.0f}",
                chart.may_be_log))
    charts += [_chart(name, {name: series[name]}, drawn)
               for name in sorted(left)]
    return charts


def _chart(title: str, named: Mapping[str, list[tuple[float, float]]],
           drawn: list[list[Thinned]], summary: str = "",
           may_be_log: bool = False) -> str:
    drawn.append([thin(name, points) for name, points in named.items()])
    return line_chart(title, drawn[-1], place=len(drawn) - 1,
                      summary=summary, may_be_log=may_be_log)


def _gates(series: Series, drawn: list[list[Thinned]]) -> list[str]:
    charts = []
    last: dict[str, dict[str, float]] = {}
    for prefix, title, summary in _GATES:
        names = sorted((name for name in series if name.startswith(prefix)),
                       key=_block)
        if names:
            charts.append(_chart(title, {
                _block_name(name): series[name] for name in names}, drawn,
                summary))
        for name in names:
            _, span, _ = name.split("/", 2)
            if prefix.startswith("added/"):
                last.setdefault(f"{span} range", {})[
                    _block_name(name)] = series[name][-1][1]
    blocks = sorted(set().union(*last.values()), key=_block) if last else []
    if blocks and all(len(row) == len(blocks) for row in last.values()):
        charts.append(bar_chart(
            "What each block adds, at the end", blocks,
            {span: [row[block] for block in blocks]
             for span, row in last.items()},
            summary="root mean square of the gated up-projection"))
    return charts


def _block(name: str) -> tuple[int, str]:
    digits = "".join(c for c in name.rpartition("/")[2] if c.isdigit())
    return int(digits or 0), name


def _block_name(name: str) -> str:
    return name.rpartition("/")[2].replace("_", " ")


def _facts(series: Series, config: Mapping[str, Any]) -> str:
    steps = max(points[-1][0] for points in series.values())
    facts = [f"step {steps:,.0f}"]
    backbone = config.get("backbone", {})
    width = backbone.get("width")
    for what, value in (
            ("recipe", config.get("name")),
            ("adapter", config.get("adapter", {}).get("kind")),
            ("head", config.get("head", {}).get("kind")),
            ("backbone", backbone.get("name") or (
                f"of width {width}" if width else "")),
            ("seed", config.get("seed"))):
        if value not in (None, ""):
            facts.append(f"{what} {value}")
    return "".join(f"<li>{escape(fact)}</li>" for fact in facts)


def _tiles(series: Series, cost: Mapping[str, Any]) -> str:
    found: list[tuple[str, str, str]] = []
    if "map" in series:
        step, best = max(series["map"], key=lambda point: point[1])
        found.append(("Best average mAP", f"{best:.2f} %",
                      f"at step {step:,.0f}"))
    if "loss" in series:
        points = series["loss"]
        tail = [value for _, value in points[-max(len(points) // 20, 1):]]
        found.append(("Loss", number(sum(tail) / len(tail)),
                      "mean of the last twentieth"))
    if "seconds_per_step" in series:
        times = sorted(value for _, value in series["seconds_per_step"])
        found.append(("Seconds a step", number(times[len(times) // 2]),
                      "median"))
    if "data_wait_share" in series:
        waits = [value for _, value in series["data_wait_share"]]
        found.append(("Waiting for data",
                      f"{100 * sum(waits) / len(waits):.0f} %", "mean"))
    for key, what in (("trained_parameters", "Trained parameters"),
                      ("frozen_parameters", "Frozen parameters")):
        if key in cost:
            found.append((what, f"{cost[key]:,}", ""))
    if "step_temporary_bytes" in cost:
        found.append(("A step's temporary memory",
                      f"{cost['step_temporary_bytes'] / 2 ** 20:,.0f} MiB",
                      "a device, by XLA's count"))
    return tiles(found)


def _settings(config: Mapping[str, Any]) -> str:
    rows = "".join(f'<tr><th scope="row">{escape(name)}</th>'
                   f"<td>{escape(value)}</td></tr>"
                   for name, value in _flat(config))
    return ('<section class="card"><details><summary><h2>Settings</h2>'
            '</summary><div class="wide"><table class="config"><tbody>'
            f"{rows}</tbody></table></div></details></section>")


def _flat(config: Mapping[str, Any], prefix: str = ""
          ) -> Sequence[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows
