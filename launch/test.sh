#!/usr/bin/env bash
# Fresh machine -> virtual environment -> lint, types, documentation, tests.
#
#   bash launch/test.sh [arguments for pytest]
#
# LOSA_SHARED=FOLDER adds the tests on real data and numerical fixtures;
# LOSA_EXTRAS=torch adds those that compare with torch, `browser` those that
# look at pages in the system's Chromium (LOSA_CHROMIUM=PATH names another).
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
# Two workers: a test compiles on one core much of the time.
python -m pytest -n 2 "$@"
