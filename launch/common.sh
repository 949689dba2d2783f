# Sourced by the launch scripts: dry runs, and groups of processes that restart.
# shellcheck shell=bash

# Exit status of a run that a signal stopped with everything saved, and of a
# process that lost another one.
readonly INTERRUPTED=75 LOST=76
# What every process runs; PROGRAM=losa_jax.predict predicts on an archive.
: "${PROGRAM:=losa_jax.main}"
DRY_RUN=""
ARGUMENTS=()
# Variables of one process in addition to the environment; `one_process` sets
# them.
PROCESS_ENV=()

# usage MESSAGE: prints the header of the script that was started and the error.
usage() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
  echo "error: $1" >&2
  exit 2
}

# parse_common ARGUMENT...: handles --dry-run and --help, stores the others in
# ARGUMENTS.
parse_common() {
  local argument
  for argument in "$@"; do
    case "$argument" in
      --dry-run) DRY_RUN=1 ;;
      --help | -h) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit ;;
      *) ARGUMENTS+=("$argument") ;;
    esac
  done
}

# run COMMAND...: runs it, or prints it with shell quotes in a dry run.
run() {
  local argument line=""
  if [ -n "$DRY_RUN" ]; then
    for argument in "$@"; do
      case "$argument" in
        '' | *[!A-Za-z0-9_./:=,@%+-]*)
          argument="'${argument//\'/\'\\\'\'}'" ;;
      esac
      line+="${line:+ }$argument"
    done
    printf '%s\n' "$line"
  else
    "$@"
  fi
}

free_port() {
  python -c 'import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])'
}

# run_group COUNT FLAG...: runs COUNT processes of $PROGRAM. Starts them
# again, up to RESTARTS times, if they were stopped or one was lost. Exits with
# their status.
run_group() {
  local count=$1 left=${RESTARTS:-0} status
  shift
  while :; do
    start_group "$count" "$@"
    status=$?
    restarts "$status" || exit "$status"
    if [ "$left" -le 0 ] || [ -n "$STOPPED" ]; then
      exit "$status"
    fi
    left=$((left - 1))
    echo "status $status: starting again" >&2
  done
}

# restarts STATUS: succeeds if starting again may help.
restarts() {
  # 128 and more: killed by a signal, or by jax because another one was.
  [ "$1" -eq "$INTERRUPTED" ] || [ "$1" -eq "$LOST" ] || [ "$1" -ge 128 ]
}

# start_group COUNT FLAG...: starts them once; returns the worst status.
start_group() {
  local count=$1 port=${PORT:-} id status=0 one
  local -a pids=() prefix=()
  shift
  if [ -z "$port" ]; then
    port=$(if [ -n "$DRY_RUN" ]; then echo 12345; else free_port; fi)
  fi
  STOPPED=""
  for ((id = 0; id < count; id++)); do
    PROCESS_ENV=()
    if declare -F one_process >/dev/null; then
      one_process "$id"
    fi
    prefix=(env "${PROCESS_ENV[@]}" python -m "$PROGRAM" --coordinator="127.0.0.1:$port"
      --num_processes="$count" --process_id="$id")
    if [ -n "$DRY_RUN" ]; then
      run "${prefix[@]}" "$@"
      continue
    fi
    "${prefix[@]}" "$@" &
    pids+=($!)
  done
  [ -z "$DRY_RUN" ] || exit 0
  trap 'STOPPED=1; kill -TERM "${pids[@]}" 2>/dev/null' TERM INT
  for id in "${!pids[@]}"; do
    # A trapped signal ends `wait` early; the process may still save.
    while :; do
      wait "${pids[id]}"
      one=$?
      kill -0 "${pids[id]}" 2>/dev/null || break
    done
    [ "$(worse "$one" "$status")" = "$one" ] && status=$one
  done
  trap - TERM INT
  return "$status"
}

# worse STATUS...: prints the worst: an error, else a lost process, else a stop.
worse() {
  local one rank best=0 first=-1
  for one in "$@"; do
    case "$one" in
      0) rank=0 ;;
      "$INTERRUPTED") rank=1 ;;
      "$LOST") rank=2 ;;
      *) if [ "$one" -ge 128 ]; then rank=3; else rank=4; fi ;;
    esac
    [ "$rank" -gt "$first" ] && first=$rank best=$one
  done
  echo "$best"
}
