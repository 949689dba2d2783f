#!/usr/bin/env bash
# On a fresh machine: makes a virtual environment, trains and evaluates LoSA on
# rendered videos, prints the mAP and writes HTML pages. Needs only Python >=
# 3.11 and a package index; uv makes the installation faster.
#
#   bash launch/quickstart.sh [flags of losa_jax.main, e.g. --config.seed=1]
#
# It writes to .venv and runs/ of this folder and reuses both when run again. To
# start over, remove runs/.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh
make_environment requirements.txt

run=(python -m losa_jax.main --config=configs/quick.py --workdir=runs/quick "$@")
"${run[@]}"
"${run[@]}" --mode=eval --report

cat <<'END'

What to type next, after `. .venv/bin/activate`:
  python -m losa_jax.predict --checkpoint=runs/quick --report \
    runs/quick_data/untrimmed/videos/untrimmed_testing_0000.mp4
  python -m losa_jax.score runs/quick/predictions.json --subset=testing \
    --annotations=runs/quick_data/untrimmed/annotations.json
  python -m losa_jax.main --config=configs/custom.py --mode=check_data \
    --config.data.annotations=YOUR.json --config.data.videos=YOUR_FOLDER
END
