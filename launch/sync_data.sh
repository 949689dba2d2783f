#!/usr/bin/env bash
# Copies a folder of videos, annotations or cached features to where a run reads
# it; files that are there and unchanged are skipped.
#
#   bash launch/sync_data.sh videos gs://BUCKET/thumos/videos
#   bash launch/sync_data.sh gs://BUCKET/thumos/videos videos
#   bash launch/sync_data.sh videos USER@HOST:/data/videos
#   ZONE=us-west4-a bash launch/sync_data.sh gs://BUCKET/videos tpu:NAME:videos
#   bash launch/sync_data.sh --dry-run FROM TO
#
# tpu:NAME:FOLDER is the disk of every worker of a TPU VM slice, FOLDER relative
# to the home folder. Each worker fetches the data from the bucket.
#
# Common problems
#   A run needs all videos: sync the whole folder, not single files.
#   Disk full on a TPU VM (100 GB): sync cached features (--mode=cache) instead
#     of videos, or attach a disk.
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
