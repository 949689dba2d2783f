#!/usr/bin/env bash
# A run on one or several TPU slices of a GKE cluster: fills in
# launch/gke_jobset.yaml and applies it. Slices communicate over the data center
# network.
#
#   NAME=losa IMAGE=REGION-docker.pkg.dev/PROJECT/REPO/losa_jax:1 \
#   ACCELERATOR=tpu-v5-lite-podslice TOPOLOGY=4x4 HOSTS=4 SLICES=2 \
#     bash launch/gke_jobset.sh --config=configs/thumos.py:g1536 \
#       --workdir=gs://BUCKET/runs/g [other flags of losa_jax.main]
#   ... bash launch/gke_jobset.sh --dry-run ...   # prints YAML and commands
#
# Build the image once for each version of the code:
#   docker build -f launch/Dockerfile -t IMAGE . && docker push IMAGE
# The cluster needs the JobSet operator and one node pool per slice:
#   kubectl apply --server-side -f https://github.com/kubernetes-sigs/jobset/\
# releases/latest/download/manifests.yaml
#   gcloud container node-pools create POOL --cluster=CLUSTER \
#     --machine-type=ct5lp-hightpu-4t --tpu-topology=4x4 --num-nodes=4 [--spot]
# Environment (defaults): CHIPS per host (4), RESTARTS (100), ACCOUNT, the
#   Kubernetes service account that may write to the bucket ("default").
#
# Common problems
#   Pods stay Pending: TOPOLOGY, ACCELERATOR and HOSTS must match the node
#     pool, and HOSTS x CHIPS must be the number of chips of TOPOLOGY.
#   403 on gs://: bind ACCOUNT to a Google account (Workload Identity).
#   Pods cannot read videos from gs://: mount the bucket (Cloud Storage FUSE
#     CSI) or a Filestore volume, or train from cached features (--mode=cache)
#     on such a volume.
#   Logs: kubectl logs -f -l jobset.sigs.k8s.io/jobset-name=NAME --prefix
#   To stop: kubectl delete jobset NAME (the pods save and end).
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/common.sh

parse_common "$@"
: "${NAME:=losa-jax}" "${ACCELERATOR:=tpu-v5-lite-podslice}"
: "${TOPOLOGY:=4x4}" "${HOSTS:=4}" "${SLICES:=1}" "${CHIPS:=4}"
: "${RESTARTS:=100}" "${ACCOUNT:=default}"
[ -n "${IMAGE:-}" ] || usage "set IMAGE, of launch/Dockerfile, pushed"
case "${ARGUMENTS[*]:-}" in
  *--workdir=* | *--output=*) ;;
  *) usage "--workdir=gs://... is missing: a pod's own disk is lost with it" ;;
esac

render() {
  local flags="" flag key text
  for flag in "${ARGUMENTS[@]}"; do
    flag=${flag//\\/\\\\}
    flags+="${flags:+, }\"${flag//\"/\\\"}\""
  done
  text=$(cat launch/gke_jobset.yaml)
  # shellcheck disable=SC2034  # read by its name below
  FLAGS="[$flags]"
  for key in NAME ACCELERATOR TOPOLOGY HOSTS SLICES CHIPS RESTARTS ACCOUNT \
    IMAGE PROGRAM FLAGS; do
    text=${text//"@$key@"/"${!key}"}
  done
  # The header explains the placeholders.
  sed '/^#/d' <<<"$text"
}

if [ -n "$DRY_RUN" ]; then
  render
  echo "# which goes to:"
  run kubectl apply -f -
  exit
fi
render | kubectl apply -f -
kubectl get jobset "$NAME"
