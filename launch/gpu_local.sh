#!/usr/bin/env bash
# One run on all GPUs of this machine.
#
#   bash launch/gpu_local.sh --config=configs/thumos.py:b \
#       --workdir=runs/thumos_b [other flags of losa_jax.main]
#   PROCESSES=8 bash launch/gpu_local.sh ...      # with 8 GPUs: one each
#   GPUS=0,1 bash launch/gpu_local.sh ...         # only these
#   bash launch/gpu_local.sh --dry-run ...        # only print
#
# By default one process uses all GPUs. PROCESSES, a divisor of their number,
# divides GPUs and decoding among that many processes. RESTARTS=N starts again
# up to N times after a signal (75) or a lost process.
#
# Common problems
#   "there are 1" devices, or it runs on the CPU: jax lacks CUDA. Run
#     `pip install -e .[cuda12]` (or cuda13) and check `nvidia-smi`.
#   Out of memory at the start: another program uses the GPU. jax allocates
#     75 % of its memory (XLA_PYTHON_CLIENT_MEM_FRACTION=0.9 for more).
#   config.mesh: the sizes must multiply to the number of GPUs; 0 chooses one.
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
