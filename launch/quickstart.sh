#!/usr/bin/env bash
# Fresh machine -> virtual environment -> the embedded default trained and
# evaluated -> mAP table. Needs Python >= 3.11 and a package index, no more.
#
#   bash launch/quickstart.sh [flags of losa_jax.main, e.g. --config.seed=1]
#
# Everything lands in .venv and runs/ of this folder. A second run reuses
# both; to start over, remove runs/.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh
make_environment requirements.txt

python -m losa_jax.main --config=configs/quick.py --workdir=runs/quick "$@"
