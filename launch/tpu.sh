#!/usr/bin/env bash
# Trains on a TPU VM or slice: launch/tpu.sh VERB [--dry-run] [--yes] [-- ARGUMENTS]
#
#   create   makes a TPU VM at once, or fails for want of room
#   queue    asks for one as a queued resource, which comes when there is room
#   install  sends the last commit to all workers and installs it there, then runs SCORE_SETUP
#   start    starts `python -m score_jax.pipeline --distributed ARGUMENTS` on all workers
#            where it is not running, as the system's service score_jax
#   resume   does what is missing of all this: asks for a VM again if it was preempted,
#            waits for it, installs, starts
#   watch    resumes whenever it is needed, until all workers have finished
#   status   shows the states of the VM and of the service on each worker
#   logs     follows the log of a worker, --worker=0 or --worker=all
#   stop     ends the service; a training run saves first, and start goes on from there. End a
#            watch before, which would start it again
#   delete   gives the TPU back, after asking or with --yes; buckets are left alone
#
# --dry-run prints the commands and runs none; what depends on a state is printed as it would be
# after a preemption. Settings are environment variables, see launch/settings.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/common.sh

service=score_jax
number=http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number
worker=0

option() {
  case $verb:$1 in
    logs:--worker=?*) worker=${1#*=} ;;
    *:--worker=*) fail "$verb $1: --worker=NUMBER or --worker=all is an option of logs" ;;
    *) fail "unknown option $1; arguments of the pipeline stand after --" ;;
  esac
}

cloud() {
  run gcloud compute tpus "$@" --project="$SCORE_PROJECT" --zone="$SCORE_ZONE" --quiet
}

# Runs a shell command in the home directory of all workers at the same time.
on_all() {
  cloud tpu-vm ssh "$SCORE_NAME" --worker=all --command="$1"
}

# Sets `queued` and `vm` to the states of the queued resource and the VM; '' if there is none.
look() {
  local filter="name ~ \"(^|/)$SCORE_NAME\$\""
  if [[ -n $dry_run ]]; then
    cloud queued-resources list --filter="$filter" --format='value(state.state)'
    cloud tpu-vm list --filter="$filter" --format='value(state)'
    queued=SUSPENDED vm=''
    return
  fi
  # Not `describe`, which fails alike for what is not there and for what cannot be reached.
  queued=$(cloud queued-resources list --filter="$filter" --format='value(state.state)')
  vm=$(cloud tpu-vm list --filter="$filter" --format='value(state)')
}

# The software of a TPU VM goes by the kind of TPU.
runtime() {
  case ${SCORE_RUNTIME:-}/$SCORE_TYPE in
    /v6e-*) echo v2-alpha-tpuv6e ;;
    /v5p-*) echo v2-alpha-tpuv5 ;;
    /v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    /v4-* | /v3-* | /v2-*) echo tpu-ubuntu2204-base ;;
    /*) fail "no runtime is known for SCORE_TYPE=$SCORE_TYPE: set SCORE_RUNTIME, or use launch/xpk.sh" ;;
    *) echo "$SCORE_RUNTIME" ;;
  esac
}

create() {
  local version
  version=$(runtime)
  cloud tpu-vm create "$SCORE_NAME" --accelerator-type="$SCORE_TYPE" --version="$version" \
    ${SCORE_SPOT:+--spot}
}

queue() {
  local version
  version=$(runtime)
  cloud queued-resources create "$SCORE_NAME" --node-id="$SCORE_NAME" \
    --accelerator-type="$SCORE_TYPE" --runtime-version="$version" ${SCORE_SPOT:+--spot}
}

install() {
  local python=.venv/bin/python command
  make_bundle
  cloud tpu-vm scp "$bundle" "$SCORE_NAME:" --worker=all
  # The system's Python is older than what jax needs; uv brings its own.
  command="git init --quiet score_jax && cd score_jax"
  command+=" && git fetch --quiet ../${bundle##*/} HEAD && git checkout --quiet --detach FETCH_HEAD"
  command+=" && python3 -m pip install --quiet --user uv"
  command+=" && python3 -m uv venv --quiet --allow-existing --python=3.11 .venv"
  command+=" && python3 -m uv pip install --quiet --python=$python --editable '.[tpu,gcs]'"
  if [[ -n ${SCORE_SETUP:-} ]]; then
    command+=" && ($SCORE_SETUP)"
  fi
  on_all "$command && touch .venv/installed"
}

start() {
  local arguments=() argument unit
  for argument in "${rest[@]}"; do
    arguments+=("${argument//\$/\$\$}") # systemd replaces $NAME, and reads $$ as $
  done
  # A worker whose process ended because another one's did joins again by itself, at most ten times
  # an hour. libtpu locks memory. A stop waits for the update that is under way.
  unit="sudo systemd-run --unit=$service --remain-after-exit --uid=\"\$(id -u)\""
  unit+=" --working-directory=\"\$HOME/score_jax\" --property=Restart=on-failure"
  unit+=" --property=RestartSec=30 --property=StartLimitIntervalSec=3600"
  unit+=" --property=StartLimitBurst=10 --property=TimeoutStopSec=3600"
  unit+=" --property=LimitMEMLOCK=infinity --property=LimitNOFILE=1048576"
  unit+=" --setenv=PYTHONUNBUFFERED=1"
  # The worker's number, so that one that starts again alone knows it without the others.
  unit+=" --setenv=SCORE_PROCESS_ID=\"\$index\""
  # systemd wants the program's path from the root.
  unit+=" \"\$HOME/score_jax/.venv/bin/python\" -m score_jax.pipeline --distributed"
  unit+=" $(words "${arguments[@]}")"
  on_all "state=\$(systemctl show --property=ActiveState --value $service); case \$state in \
inactive | failed) sudo systemctl reset-failed $service 2>/dev/null; \
index=\$(curl --silent --show-error --fail --header 'Metadata-Flavor: Google' $number) && $unit ;; \
*) echo \"$service is \$state already\" ;; esac"
}

# Comes back when there is a VM to work on; asks for a new one where it was preempted.
get_ready() {
  while true; do
    look
    case $queued:$vm in
      ACTIVE:READY | :READY) return ;;
      :) queue ;;
      SUSPENDED:* | FAILED:* | ACTIVE:PREEMPTED | ACTIVE:TERMINATED)
        cloud queued-resources delete "$SCORE_NAME" --force
        queue
        ;;
      :PREEMPTED | :TERMINATED)
        cloud tpu-vm delete "$SCORE_NAME"
        create
        ;;
      *) say "waiting for $SCORE_NAME: queued resource ${queued:-none}, VM ${vm:-none}" ;;
    esac
    [[ -z $dry_run ]] || return 0
    sleep "$poll_s"
  done
}

prepare() {
  local missing=missing
  get_ready
  [[ -n $dry_run ]] || missing=$(on_all 'test -e score_jax/.venv/installed || echo missing')
  [[ $missing != *missing* ]] || install
}

resume() {
  prepare
  start
}

# One look of `watch`: ends with 0 when all workers have finished, 10 when one has given up.
watch_once() {
  local states
  prepare
  states=$(on_all "echo \"state=\$(systemctl show --property=SubState --value $service)\"")
  states=$(sed -n 's/^state=//p' <<<"$states" | sort -u)
  case $states in
    exited) return 0 ;;
    *failed*) return 10 ;;
    *dead*) start ;;
  esac
  return 11
}

watch() {
  local status
  if [[ -n $dry_run ]]; then
    resume
    return
  fi
  while true; do
    # Not in a condition: there bash goes on after a command that fails.
    set +e
    (
      set -e
      watch_once
    )
    status=$?
    set -e
    case $status in
      0)
        say "$SCORE_NAME has finished; launch/tpu.sh delete gives the TPU back"
        return
        ;;
      10) fail 'a worker failed ten times within an hour; see launch/tpu.sh logs --worker=all' ;;
      11) ;;
      *) say "exit status $status; trying again in $poll_s s" ;;
    esac
    sleep "$poll_s"
  done
}

status() {
  look
  [[ -n $dry_run ]] || say "queued resource ${queued:-none}, VM ${vm:-none}"
  [[ -z $dry_run && $vm != READY ]] || on_all "systemctl show --property=SubState --value $service"
}

logs() {
  cloud tpu-vm ssh "$SCORE_NAME" --worker="$worker" \
    --command="sudo journalctl --unit=$service --output=cat --lines=200 --follow"
}

stop() {
  # Status 143 counts as a failure, which `watch` would take for one.
  on_all "sudo systemctl stop $service && { sudo systemctl reset-failed $service 2>/dev/null || true; }"
}

delete() {
  look
  if [[ -n $queued ]]; then
    confirm "Delete the queued resource $SCORE_NAME ($queued) in $SCORE_ZONE, and its TPU VM?"
    cloud queued-resources delete "$SCORE_NAME" --force
  elif [[ -n $vm ]]; then
    confirm "Delete the TPU VM $SCORE_NAME ($vm) in $SCORE_ZONE?"
    cloud tpu-vm delete "$SCORE_NAME"
  else
    say "there is neither a queued resource nor a TPU VM $SCORE_NAME in $SCORE_ZONE"
  fi
}

verb=${1:-help}
read_options "${@:2}"
poll_s=${SCORE_POLL_S:-60}
case $verb in
  help | --help | -h)
    usage launch/tpu.sh
    exit
    ;;
  create | queue | install | start | resume | watch | status | logs | stop | delete) ;;
  *) fail "unknown verb $verb; launch/tpu.sh help lists them" ;;
esac
check_settings
need SCORE_NAME SCORE_PROJECT SCORE_ZONE
case $verb in create | queue | resume | watch) need SCORE_TYPE && runtime >/dev/null ;; esac
case $verb in start | resume | watch) need_arguments ;; *) refuse_arguments "$verb" ;; esac
"$verb"
