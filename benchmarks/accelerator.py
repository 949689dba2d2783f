"""What this machine's accelerators compute, how fast, in how much memory.

    python -m benchmarks.accelerator [--minutes=8] [--output=runs/accelerator]

On all devices of this machine:
- attention as the model runs it, against its formula, in bfloat16 and in
  float32 with exact products;
- features, losses, gradients and detections of ViT-S with LoSA and with a
  trained backbone, against the CPU;
- train and evaluation steps of configs/thumos.py with ViT-B, L and g at full
  size, with random weights and frames: time, clips per second, share of the
  devices' rated FLOP/s (matrix products only), peak memory against that of
  --mode=plan, and the share of an evaluation in which the devices compute.

Each part is a process of its own. None is started when the minutes are over;
those that did not run are named. accelerator.json and accelerator.md in the
folder are written after each part. The exit status is 1 if a part failed or a
difference is too large. On a CPU a tiny model runs in place of these.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.child_process import run_measured
from benchmarks.common.figures import table

# Before the large models, whose compilation takes minutes.
PARTS = ("attention", "parity:float32", "recipe:b", "parity:bfloat16",
         "recipe:l", "recipe:g768", "recipe:g1536")
CPU_PARTS = ("attention", "parity:float32", "parity:bfloat16", "recipe:tiny")
_GIB, _TERA = 2**30, 1e12


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--output", type=Path, default=Path("runs/accelerator"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    report = measure(60 * arguments.minutes, arguments.output)
    print(markdown(report))
    return 0 if passed(report) else 1


def measure(seconds: float, folder: Path,
            run: Callable[[str, Path], Any] | None = None) -> dict[str, Any]:
    """Measures part after part until the time is over; writes both files.

    `run` measures one part, given its name and a file for the result.
    """
    run = run or run_part
    started = time.monotonic()
    device = run("device", folder / "part.json")
    parts = CPU_PARTS if device["platform"] == "cpu" else PARTS
    report: dict[str, Any] = {"device": device, "results": {}, "failed": {},
                              "not_run": list(parts)}
    for part in parts:
        if time.monotonic() - started < seconds:
            print(f"measuring {part}", file=sys.stderr)
            try:
                report["results"][part] = run(part, folder / "part.json")
            except RuntimeError as error:
                print(error, file=sys.stderr)
                report["failed"][part] = reason_of(str(error))
            report["not_run"].remove(part)
        for name, text in (("json", json.dumps(report, indent=1)),
                           ("md", markdown(report))):
            (folder / f"accelerator.{name}").write_text(
                text + "\n", encoding="utf-8")
    return report


def run_part(part: str, result: Path) -> Any:
    """Measures a part in a process of its own; RuntimeError if it fails."""
    run_measured(["-m", "benchmarks.common.device_parts", part, str(result)])
    content = json.loads(result.read_text(encoding="utf-8"))
    result.unlink()
    return content


def reason_of(text: str) -> str:
    """Returns the line of a failed command's output that names the error."""
    lines = text.strip().splitlines()
    # jax prints a remark behind it.
    return next((line for line in reversed(lines)
                 if re.match(r"[\w.]+(Error|Exception)\b", line)), lines[-1])


def passed(report: Mapping[str, Any]) -> bool:
    """Whether no part failed and no difference is too large."""
    return not report["failed"] and all(
        one.get("passed", True) for part in report["results"].values()
        for one in part.values() if isinstance(one, dict))


def markdown(report: Mapping[str, Any]) -> str:
    """Returns the table of a report."""
    device = report["device"]
    rate = device["peak_flops"]
    rows = [("devices", f"{device['count']} x {device['kind']}, jax "
             f"{device['jax']}; " + (
                 f"rated at {rate / _TERA:.0f} TFLOP/s each" if rate else
                 "their rated FLOP/s are not known, so no share is given"))]
    for part, result in report["results"].items():
        kind, _, variant = part.partition(":")
        if kind == "recipe":
            rows += _recipe_rows(variant, result)
        else:
            rows += [(f"{kind}, {name}", _comparison(one))
                     for name, one in result.items()]
    rows += [(part, f"**FAILED**: {reason}")
             for part, reason in report["failed"].items()]
    rows += [(part, "not run, the time was over")
             for part in report["not_run"]]
    return table(["what", "figure"], rows)


def _comparison(one: Mapping[str, Any]) -> str:
    text = "largest relative differences: " + ", ".join(
        f"{name} {error:.1e}" for name, error in one["errors"].items())
    if "detections" in one:
        text += f"; {100 * one['detections']:.1f} % of the detections are equal"
    if "kernel" in one:
        text = f"{one['kernel']}; {text}"
    return text + ("" if one["passed"] else "; **too large**")


def _recipe_rows(variant: str, result: Mapping[str, Any]
                 ) -> Sequence[tuple[str, str]]:
    training, evaluation = result["training"], result["evaluation"]
    mesh = " x ".join(str(size) for size in result["mesh"].values())
    memory = f"planned {training['planned_bytes'] / _GIB:.2f} GiB a device"
    if training["peak_bytes"] is not None:
        memory = (f"peak {training['peak_bytes'] / _GIB:.2f} GiB a device, "
                  f"{memory} "
                  f"({training['loaded_bytes'] / _GIB:.2f} before the first "
                  "step)")
    name = f"thumos.py:{variant}" if variant != "tiny" else "a tiny model"
    return [
        (f"{name}, a train step of {training['windows']} windows, mesh {mesh}",
         f"{_speed(training)}; {memory}; compiled in "
         f"{training['compile_seconds']:.0f} s"),
        (f"{name}, an evaluation step of {evaluation['windows']} windows",
         f"{_speed(evaluation)}; the devices compute in "
         f"{100 * evaluation['busy_share']:.0f} % of the time of an "
         f"evaluation of {evaluation['evaluated_windows']} windows "
         f"({evaluation['wall_seconds']:.1f} s)")]


def _speed(rates: Mapping[str, Any]) -> str:
    text = (f"{rates['seconds_per_step']:.3g} s, "
            f"{rates['clips_per_second']:,.0f} clips/s, "
            f"{rates['flops_per_step'] / _TERA:.3g} TFLOP")
    if rates["share_of_peak"] is not None:
        text += f", {100 * rates['share_of_peak']:.0f} % of the rated FLOP/s"
    return text


if __name__ == "__main__":
    sys.exit(main())
