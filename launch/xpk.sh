#!/usr/bin/env bash
# Trains on GKE with XPK: launch/xpk.sh VERB [--dry-run] [--yes] [-- ARGUMENTS]
#
#   cluster         makes a GKE cluster with SCORE_SLICES slices of SCORE_TYPE
#   image           builds a container image of the last commit and pushes it to SCORE_IMAGE
#   start           submits `python -m score_jax.pipeline --distributed ARGUMENTS` as a workload
#                   on all hosts; GKE starts it again when a node is lost, and it goes on
#   status          lists the workload
#   logs            follows the logs of all its hosts
#   delete          deletes the workload, after asking or with --yes
#   delete-cluster  deletes the cluster with all that runs on it, after asking or with --yes
#
# --dry-run prints the commands and runs none. Settings are environment variables, see
# launch/settings.sh. Needs xpk, gcloud and kubectl; image needs docker.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/common.sh

place() {
  run "$@" --project="$SCORE_PROJECT" --zone="$SCORE_ZONE"
}

cluster() {
  local capacity=--on-demand
  [[ -z ${SCORE_SPOT:-} ]] || capacity=--spot
  place xpk cluster create --cluster="$SCORE_CLUSTER" --tpu-type="$SCORE_TYPE" \
    --num-slices="${SCORE_SLICES:-1}" "$capacity"
}

image() {
  make_bundle
  # The bundle is all that the image is built from.
  run docker build --platform=linux/amd64 --file=launch/Dockerfile --tag="$SCORE_IMAGE" \
    "${bundle%/*}"
  run docker push "$SCORE_IMAGE"
}

start() {
  # XPK starts again after 42 and 127 to 255 only. 75 is how hosts end when one is lost or hangs, 2 how
  # one ends that met an error, be it a broken connection or a wrong argument: hence a limit.
  place xpk workload create --cluster="$SCORE_CLUSTER" --workload="$SCORE_NAME" \
    --tpu-type="$SCORE_TYPE" --num-slices="${SCORE_SLICES:-1}" --docker-image="$SCORE_IMAGE" \
    --max-restarts=50 --restart-on-exit-codes=2,75 --termination-grace-period-seconds=300 \
    --command="exec python -m score_jax.pipeline --distributed $(words "${rest[@]}")"
}

status() {
  place xpk workload list --cluster="$SCORE_CLUSTER" --filter-by-job="$SCORE_NAME"
}

logs() {
  run gcloud container clusters get-credentials "$SCORE_CLUSTER" --project="$SCORE_PROJECT" \
    --region="${SCORE_ZONE%-*}"
  run kubectl logs --selector="jobset.sigs.k8s.io/jobset-name=$SCORE_NAME" --container=jax-tpu \
    --follow --prefix --tail=200 --max-log-requests=1000
}

delete() {
  confirm "Delete the workload $SCORE_NAME of the cluster $SCORE_CLUSTER?"
  place xpk workload delete --cluster="$SCORE_CLUSTER" --workload="$SCORE_NAME" --force
}

delete-cluster() {
  confirm "Delete the cluster $SCORE_CLUSTER in $SCORE_ZONE with all that runs on it?"
  place xpk cluster delete --cluster="$SCORE_CLUSTER" --force
}

verb=${1:-help}
read_options "${@:2}"
case $verb in
  help | --help | -h)
    usage launch/xpk.sh
    exit
    ;;
  image) need SCORE_IMAGE ;;
  cluster) need SCORE_PROJECT SCORE_ZONE SCORE_CLUSTER SCORE_TYPE ;;
  start) need SCORE_PROJECT SCORE_ZONE SCORE_CLUSTER SCORE_NAME SCORE_TYPE SCORE_IMAGE ;;
  status | logs | delete) need SCORE_PROJECT SCORE_ZONE SCORE_CLUSTER SCORE_NAME ;;
  delete-cluster) need SCORE_PROJECT SCORE_ZONE SCORE_CLUSTER ;;
  *) fail "unknown verb $verb; launch/xpk.sh help lists them" ;;
esac
case $verb in start) need_arguments ;; *) refuse_arguments "$verb" ;; esac
check_settings
"$verb"
