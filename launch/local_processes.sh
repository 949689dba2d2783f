#!/usr/bin/env bash
# N real processes of one run on this machine, over loopback: what a pod or a
# cluster does with one process a host, to try and to test.
#
#   bash launch/local_processes.sh 2 --config=configs/quick.py \
#       --workdir=runs/two [other flags of losa_jax.main]
#   DEVICES_A_PROCESS=4 bash launch/local_processes.sh 2 ...   # CPU devices
#   bash launch/local_processes.sh --dry-run 2 ...             # only print
#
# Processes run on the CPU, collectives by gloo. For the GPUs of this machine:
# launch/gpu_local.sh.
#
# Restarts all of them up to RESTARTS times (0) where they end with 75 (a
# signal: everything is saved) or one was lost (a signal killed it); the run
# goes on from its last checkpoint, with any number of processes.
#
# Common problems
#   "did not find each other": another program listens at PORT; the default is
#     a free one.
#   Slower than one process: they share the cores. This is for trying.
#   Ctrl-C: once, and wait: every process saves and ends with 75.
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
