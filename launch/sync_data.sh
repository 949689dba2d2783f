#!/usr/bin/env bash
# Copies a folder of videos, annotations or cached features to where a run
# reads it; only what is missing or changed.
#
#   bash launch/sync_data.sh videos gs://BUCKET/thumos/videos
#   bash launch/sync_data.sh gs://BUCKET/thumos/videos videos
#   bash launch/sync_data.sh videos USER@HOST:/data/videos
#   ZONE=us-west4-a bash launch/sync_data.sh gs://BUCKET/videos tpu:NAME:videos
#   bash launch/sync_data.sh --dry-run FROM TO
#
# tpu:NAME:FOLDER is the disk of every worker of a TPU VM slice (FOLDER counts
# from the home folder); every worker fetches it from the bucket by itself.
#
# Common problems
#   Videos are read by name: sync the whole folder, not single files.
#   Disk full on a TPU VM (100 GB): sync the cache of features instead of the
#     videos (--mode=cache), or attach a disk.
#   AccessDenied: the service account of the VM needs roles/storage.objectUser.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/common.sh

parse_common "$@"
if [ "${#ARGUMENTS[@]}" -ne 2 ]; then
  usage "name two folders, from and to"
fi
from=${ARGUMENTS[0]} to=${ARGUMENTS[1]}

case "$to" in
  tpu:*:*)
    name=${to#tpu:} folder=${to#tpu:*:}
    name=${name%%:*}
    case "$from" in
      gs://*) ;;
      *) usage "workers of a TPU fetch from a bucket: sync to gs:// first" ;;
    esac
    printf -v fetch 'mkdir -p %q && gcloud storage rsync --recursive %q %q' \
      "$folder" "$from" "$folder"
    run gcloud compute tpus tpu-vm ssh "$name" \
      --zone="${ZONE:?set ZONE of the TPU}" --worker=all --command="$fetch"
    ;;
  *)
    case "$from$to" in
      *gs://*)
        run gcloud storage rsync --recursive "$from" "$to" ;;
      *)
        run rsync --archive --partial --info=progress2 "${from%/}/" "$to/" ;;
    esac
    ;;
esac
