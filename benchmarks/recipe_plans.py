"""Memory of the recipes with frames on TPU chips, by --mode=plan.

    python -m benchmarks.recipe_plans [--recipes=thumos:s,activitynet:g768]

Compiles the steps of each recipe for v5e:4x4, which takes 2 to 10 minutes each
on a CPU and needs the extra `tpu`, and stores the result in
benchmarks/recipe_plans.json. The headers of the recipes and docs/planning.md
state these numbers, and tests/test_recipe_plans.py compares them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from configs import activitynet, common, thumos

TOPOLOGY = "v5e:4x4"
RESULTS = Path(__file__).with_name("recipe_plans.json")
# All sizes; of ActivityNet's recipes, which share their frames with those for
# proposals, VideoMAE's.
RECIPES = (*(f"thumos:{name}" for name in thumos.VARIANTS),
           *(f"activitynet:{name}" for name in activitynet.SIZES
             if name not in common.OTHER_FAMILIES))


def summary(plan: dict[str, Any]) -> dict[str, Any]:
    """Returns what is stored of the JSON of --mode=plan."""
    steps = {name: plan[name] for name in ("train", "evaluate")}
    return {
        "topology": plan["topology"], "mesh": plan["mesh"],
        "fits": plan["fits"],
        "gib": {name: round(step["peak_bytes"] / 2**30, 2)
                for name, step in steps.items()},
        "tflop": {name: round(step["total_flops"] / 1e12, 1)
                  for name, step in steps.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    recipes = parser.parse_args().recipes.split(",")
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "plan.json"
        for recipe in tqdm(recipes, unit="recipe"):
            file, _, variant = recipe.partition(":")
            subprocess.run([
                sys.executable, "-m", "losa_jax.main",
                f"--config=configs/{file}.py:{variant}", "--mode=plan",
                f"--topology={TOPOLOGY}", f"--json={output}"], check=True)
            results[recipe] = summary(json.loads(output.read_text()))
            RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True)
                               + "\n")


if __name__ == "__main__":
    main()
