#!/usr/bin/env bash
# All GPUs of this machine, one run.
#
#   bash launch/gpu_local.sh --config=configs/thumos.py:b \
#       --workdir=runs/thumos_b [other flags of losa_jax.main]
#   PROCESSES=8 bash launch/gpu_local.sh ...      # one process a GPU
#   GPUS=0,1 bash launch/gpu_local.sh ...         # only these
#   bash launch/gpu_local.sh --dry-run ...        # only print
#
# One process drives all GPUs by default. PROCESSES, a divisor of their
# number, spreads the decoding of videos over so many Python processes.
# RESTARTS=N starts again up to N times after a signal (75) or a lost process.
#
# Common problems
#   "there are 1" devices, or it runs on the CPU: jax without CUDA; install
#     `pip install -e .[cuda12]` (or cuda13) and look at `nvidia-smi`.
#   Out of memory at the start: another program holds the GPU; jax takes three
#     quarters of it at once (XLA_PYTHON_CLIENT_MEM_FRACTION=0.9 for more).
#   config.mesh: sizes must multiply to the number of GPUs; 0 lets it choose.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
. launch/common.sh

parse_common "$@"
if [ -z "${GPUS:-}" ]; then
  if command -v nvidia-smi >/dev/null; then
    GPUS=$(nvidia-smi --query-gpu=index --format=csv,noheader | paste -sd,)
  elif [ -n "$DRY_RUN" ]; then
    GPUS=0,1,2,3,4,5,6,7
  else
    usage "no nvidia-smi: name the GPUs, as GPUS=0,1"
  fi
fi
IFS=, read -r -a gpus <<<"$GPUS"
count=${PROCESSES:-1}
case "$count" in
  *[!0-9]* | 0) usage "PROCESSES=$count is no number of processes" ;;
esac
share=$((${#gpus[@]} / count))
if [ $((share * count)) -ne ${#gpus[@]} ]; then
  usage "${#gpus[@]} GPUs do not divide among PROCESSES=$count"
fi

# Which GPUs process $1 sees.
one_process() {
  local mine
  mine=$(IFS=,; echo "${gpus[*]:$(($1 * share)):$share}")
  PROCESS_ENV=(CUDA_VISIBLE_DEVICES="$mine")
}

run_group "$count" "${ARGUMENTS[@]}"
