#!/usr/bin/env bash
# Runs the pipeline as on two hosts, on this machine: launch/local_two.sh [--dry-run] -- ARGUMENTS
#
# Starts `python -m score_jax.pipeline --distributed ARGUMENTS` twice, each with SCORE_DEVICES
# (4) CPU devices, joined over gloo at SCORE_PORT (8476). SCORE_PYTHON is the interpreter (python3).
# SIGTERM and Ctrl-C reach both; when one fails, the other is ended. Paths in ARGUMENTS are seen
# from the root of the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/common.sh

if [[ ${1:-help} =~ ^(help|--help|-h)$ ]]; then
  usage launch/local_two.sh
  exit
fi
read_options "$@"
need_arguments

pids=()
stop() { [[ ${#pids[@]} -eq 0 ]] || kill -TERM "${pids[@]}" 2>/dev/null || true; }
trap stop TERM INT
for index in 0 1; do
  command=(
    env JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES="${SCORE_DEVICES:-4}"
    JAX_COORDINATOR_ADDRESS="localhost:${SCORE_PORT:-8476}" JAX_NUM_PROCESSES=2
    JAX_PROCESS_ID="$index" JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo
    "${SCORE_PYTHON:-python3}" -m score_jax.pipeline --distributed "${rest[@]}"
  )
  if [[ -n $dry_run ]]; then
    run "${command[@]}"
  else
    "${command[@]}" & # not through a function, whose process would keep the signals to itself
    pids+=($!)
  fi
done
[[ -z $dry_run ]] || exit 0

# `wait` comes when there is nothing to wait for: a signal would make it return something else.
is_there() { kill -0 "$1" 2>/dev/null; }
while is_there "${pids[0]}" && is_there "${pids[1]}"; do
  sleep 1
done
ended=${pids[0]} other=${pids[1]}
if is_there "$ended"; then
  ended=${pids[1]} other=${pids[0]}
fi
status=0
wait "$ended" || status=$?
[[ $status -eq 0 ]] || stop
while is_there "$other"; do
  sleep 1
done
other_status=0
wait "$other" || other_status=$?
[[ $status -ne 0 ]] || status=$other_status
exit "$status"
