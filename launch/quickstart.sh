#!/usr/bin/env bash
# Fresh machine -> virtual environment -> LoSA trained and evaluated on
# rendered videos -> mAP table and report pages. Needs Python >= 3.11 and a
# package index, no more; uv makes the installation quicker.
#
#   bash launch/quickstart.sh [flags of losa_jax.main, e.g. --config.seed=1]
#
# Everything lands in .venv and runs/ of this folder. A second run reuses
# both; to start over, remove runs/.
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
