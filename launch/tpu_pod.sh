#!/usr/bin/env bash
# A run on a Cloud TPU VM slice: creates the slice or uses the existing one,
# copies this folder to it and installs it, runs on all workers, collects logs,
# and starts again after a preemption.
#
#   NAME=losa ZONE=us-west4-a TYPE=v5litepod-16 SPOT=1 \
#     bash launch/tpu_pod.sh --config=configs/thumos.py:g1536 \
#       --workdir=gs://BUCKET/runs/g [other flags of losa_jax.main]
#   ... bash launch/tpu_pod.sh --dry-run ...   # prints every command
#   NAME=losa ZONE=us-west4-a bash launch/tpu_pod.sh --delete
#
# Environment: NAME, ZONE; TYPE (gcloud compute tpus accelerator-types list);
#   VERSION  of the image; default: by TYPE
#   PROJECT  default: that of gcloud
#   PROGRAM  default losa_jax.main; losa_jax.predict takes ARCHIVE
#     --checkpoint=gs://... --output=gs://... in place of the flags above
#   SPOT=1   a cheaper slice, which may be preempted
#   QUEUED=1 a queued resource: waits for free chips
#   DATA, DATA_FOLDER  gs:// folder that every worker fetches first, and its
#     local folder (default data, in this folder's copy), which
#     --config.data.videos=data/... reads
#   RESTARTS after a preemption, at most (100)
#   POLL_SECONDS between checks of the run (60)
#
# The run continues if this script ends (Ctrl-C, closed laptop); the same
# command follows it again. Logs of all workers are copied to runs/NAME.logs.
#
# Common problems
#   First gcloud ssh asks for a passphrase: run `gcloud compute config-ssh`
#     once, and `ssh-add ~/.ssh/google_compute_engine`.
#   "no more capacity in the zone": SPOT=1, QUEUED=1, or another ZONE.
#   Quota: spot and on-demand chips have separate quotas.
#   --workdir must be on gs://, where the service account may write: a worker's
#     disk is lost with the slice, and each worker has its own.
#   "already in use": an old process uses the chips. Delete the slice (--delete)
#     or run `gcloud compute tpus tpu-vm ssh NAME --worker=all
#     --command="sudo fuser -k /dev/accel* /dev/vfio/*"`.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
. launch/common.sh

parse_common "$@"
: "${NAME:=losa-jax}" "${TYPE:=v5litepod-16}" "${RESTARTS:=100}"
: "${POLL_SECONDS:=60}" "${DATA_FOLDER:=data}"
[ -n "${ZONE:-}" ] || usage "set ZONE, as ZONE=us-west4-a"
if [ -z "${VERSION:-}" ]; then
  case "$TYPE" in
    v5litepod-*) VERSION=v2-alpha-tpuv5-lite ;;
    v5p-*) VERSION=v2-alpha-tpuv5 ;;
    v6e-*) VERSION=v2-alpha-tpuv6e ;;
    *) VERSION=tpu-ubuntu2204-base ;;
  esac
fi
where=(--zone="$ZONE" ${PROJECT:+--project="$PROJECT"})
vm=(gcloud compute tpus tpu-vm)
queue=(gcloud compute tpus queued-resources)
logs=runs/$NAME.logs

on_workers() { # WORKER COMMAND [OPTION...]
  run "${vm[@]}" ssh "$NAME" "${where[@]}" --worker="$1" --command="$2" \
    "${@:3}"
}

delete_slice() {
  if [ -n "${QUEUED:-}" ]; then
    run "${queue[@]}" delete "$NAME" "${where[@]}" --force --quiet
  else
    run "${vm[@]}" delete "$NAME" "${where[@]}" --quiet
  fi
}

# Prints READY, CREATING, PREEMPTED, ...; nothing if there is no slice.
slice_state() {
  "${vm[@]}" describe "$NAME" "${where[@]}" --format='value(state)' \
    2>/dev/null
}

create_slice() {
  local kind=(${SPOT:+--spot})
  if [ -z "${QUEUED:-}" ]; then
    run "${vm[@]}" create "$NAME" "${where[@]}" --accelerator-type="$TYPE" \
      --version="$VERSION" "${kind[@]}"
    return
  fi
  run "${queue[@]}" create "$NAME" "${where[@]}" --node-id="$NAME" \
    --accelerator-type="$TYPE" --runtime-version="$VERSION" "${kind[@]}" ||
    return
  while [ -z "$DRY_RUN" ]; do
    state=$("${queue[@]}" describe "$NAME" "${where[@]}" \
      --format='value(state.state)')
    case "$state" in
      ACTIVE) return ;;
      FAILED | SUSPENDED) return 1 ;;
    esac
    echo "queued: $state"
    sleep "$POLL_SECONDS"
  done
}

# Uses the existing slice if it is READY, else creates one.
ensure_slice() {
  local state
  if [ -n "$DRY_RUN" ]; then
    run "${vm[@]}" describe "$NAME" "${where[@]}" --format='value(state)'
    echo "# if there is none (one that is READY is used as it is):"
    create_slice
    return
  fi
  state=$(slice_state)
  case "$state" in
    READY) return ;;
    '') ;;
    *)
      echo "slice $NAME is $state: making it anew"
      delete_slice || return
      ;;
  esac
  create_slice
}

# Copies the tracked files of this folder, with uncommitted changes, and
# installs them.
set_up() {
  local archive=/tmp/losa_jax.$NAME.tar.gz pack setup
  printf -v pack 'git ls-files -z | tar --null --files-from=- -czf %q' \
    "$archive"
  run bash -c "$pack" &&
    run "${vm[@]}" scp "$archive" "$NAME:losa_jax.tar.gz" "${where[@]}" \
      --worker=all || return
  # The images have Python 3.10.
  setup='set -e; mkdir -p losa_jax; tar -xzf losa_jax.tar.gz -C losa_jax
command -v python3.11 >/dev/null || { sudo apt-get -qq update
sudo apt-get -qq install -y python3.11 python3.11-venv; }
cd losa_jax; . launch/environment.sh; make_environment ".[tpu,gcs]"'
  on_workers all "$setup" || return
  if [ -n "${DATA:-}" ]; then
    bash launch/sync_data.sh ${DRY_RUN:+--dry-run} "$DATA" \
      "tpu:$NAME:losa_jax/$DATA_FOLDER"
  fi
}

# Starts the run on all workers unless it is running; it continues without ssh.
start() {
  local flags command
  printf -v flags ' %q' "${ARGUMENTS[@]}"
  command="cd losa_jax; . .venv/bin/activate
if kill -0 \$(cat ../run.pid 2>/dev/null) 2>/dev/null; then exit; fi
rm -f ../run.status
nohup sh -c 'python -m $PROGRAM --distributed=on \"\$@\"
echo \$? >../run.status' -$flags >>../run.log 2>&1 </dev/null &
echo \$! >../run.pid"
  on_workers all "$command"
}

# Waits until the run ends; prints its status, or 128 if the slice is gone.
follow() {
  local status
  while :; do
    sleep "$POLL_SECONDS"
    [ "$(slice_state)" = READY ] || { echo 128; return; }
    on_workers 0 'tail -c 300 run.log | tr "\r" "\n" | tail -n 1' >&2
    status=$(on_workers 0 'cat run.status 2>/dev/null' 2>/dev/null |
      tr -dc '0-9')
    if [ -n "$status" ]; then
      echo "$status"
      return
    fi
  done
}

collect_logs() {
  run mkdir -p "$logs"
  on_workers all 'tail -n 2000 run.log' --output-directory="$logs"
}

if [ "${ARGUMENTS[*]:-}" = --delete ]; then
  delete_slice
  exit
fi
case "${ARGUMENTS[*]:-}" in
  *--workdir=gs://* | *--output=gs://*) ;;
  *) usage "--workdir (or predict's --output) must be a gs:// folder: \
workers share nothing else" ;;
esac
if [ -n "$DRY_RUN" ]; then
  ensure_slice
  set_up
  start
  echo "# every $POLL_SECONDS s, until run.status is there:"
  on_workers 0 'tail -n 1 run.log; cat run.status'
  collect_logs
  echo "# status $INTERRUPTED, $LOST, 128 and more, or the slice is gone:" \
    "again, at most $RESTARTS times; after that, or when you are done:"
  delete_slice
  exit
fi
for ((tries = 0; tries <= RESTARTS; tries++)); do
  ensure_slice && set_up && start
  status=$?
  if [ "$status" -eq 0 ]; then
    status=$(follow)
    collect_logs
  elif [ "$(slice_state)" = READY ]; then
    exit "$status" # not a preemption: what was printed says why
  else
    status=128
  fi
  restarts "$status" || break
  echo "status $status: starting again ($((tries + 1)) of $RESTARTS)"
  sleep "$POLL_SECONDS"
done
echo "ended with status $status; logs in $logs; delete the slice with" \
  "NAME=$NAME ZONE=$ZONE bash launch/tpu_pod.sh --delete"
exit "$status"
