#!/usr/bin/env bash
# On a fresh machine: makes a virtual environment, then runs lint, types,
# documentation and tests.
#
#   bash launch/test.sh [arguments for pytest]
#
# LOSA_SHARED=FOLDER adds the tests on real data and numerical fixtures;
# LOSA_EXTRAS=torch,tpu,browser adds those that compare with torch, compile for
# TPUs, and open HTML pages in the system's Chromium (or LOSA_CHROMIUM=PATH).
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh
make_environment ".[dev,docs${LOSA_EXTRAS:+,$LOSA_EXTRAS}]"

ruff check .
mypy
# Which package may import which: contracts in pyproject.toml.
lint-imports --no-logo
# The documentation site; a warning is an error.
sphinx-build -q -W --keep-going docs build/site
# Two workers, because a test often compiles on one core.
python -m pytest -n 2 "$@"
