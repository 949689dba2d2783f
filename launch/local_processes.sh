#!/usr/bin/env bash
# A run of N processes on this machine, to try what a pod or a cluster does with
# one process per host.
#
#   bash launch/local_processes.sh 2 --config=configs/quick.py \
#       --workdir=runs/two [other flags of losa_jax.main]
#   DEVICES_A_PROCESS=4 bash launch/local_processes.sh 2 ...   # CPU devices
#   bash launch/local_processes.sh --dry-run 2 ...             # only print
#
# The processes run on the CPU and communicate with gloo. For the GPUs of this
# machine use launch/gpu_local.sh.
#
# RESTARTS=N (default 0) starts all of them again, up to N times, after status
# 75 (a signal: everything is saved) or if one was killed. The run continues
# from its last checkpoint, with any number of processes.
#
# Common problems
#   "did not find each other": another program uses PORT; without PORT, a free
#     one is chosen.
#   Slower than one process: they share the cores.
#   To stop: press Ctrl-C once and wait; all processes save and end with 75.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
. launch/common.sh

parse_common "$@"
set -- "${ARGUMENTS[@]}"
count=${1:-}
case "$count" in
  '' | *[!0-9]* | 0) usage "the first argument is the number of processes" ;;
esac
shift
export JAX_PLATFORMS=cpu
export XLA_FLAGS="${XLA_FLAGS:-} \
--xla_force_host_platform_device_count=${DEVICES_A_PROCESS:-1}"

run_group "$count" "$@"
