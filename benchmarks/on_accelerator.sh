#!/usr/bin/env bash
# Measures this project where there is a GPU or a TPU: benchmarks/on_accelerator.sh [--tiny] [OUT]
#
# Takes at most eight minutes and needs no network. Each part has a limit of its own and goes on
# where another one has failed; what it prints lies in OUT/PART.md as soon as it is known, and a line
# for it in OUT/summary.md. The status is that of how many parts failed. --tiny rehearses it on a CPU.
#
# Set as the environment, each of them optional:
#   OUT             the folder for results, where it is no argument
#   SCORE_PYTHON    the interpreter, which has jax and flax (python3)
#   SCORE_WHEELS    a folder of wheels that it lacks: see docs/performance.md
#   SCORE_COMMIT    what is measured, where there is no .git to say so
#   SCORE_WEIGHTS   SmolLM2-135M-Instruct as a GGUF file; without it nothing is trained
# Tunix is compared with where the interpreter, or the wheels, have it.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

tiny=()
if [[ ${1:-} == --tiny ]]; then
  tiny=(--tiny)
  shift
fi
[[ $# -gt 0 || -z ${OUT:-} ]] || set -- "$OUT"
if [[ $# -ne 1 || $1 == -* ]]; then
  sed -n '2,/^[^#]/{/^#/{s/^# \{0,1\}//;p;};}' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
wheels=${SCORE_WHEELS:+$(cd "$SCORE_WHEELS" && pwd)} || exit 2
weights=${SCORE_WEIGHTS:+$(realpath "$SCORE_WEIGHTS")} || exit 2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$root" || exit 2

python=${SCORE_PYTHON:-python3}
export PYTHONPATH="$scratch/site:$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
# What one part has compiled another one need not.
export JAX_COMPILATION_CACHE_DIR="$scratch/compiled"
commit=${SCORE_COMMIT:-$(git describe --always --dirty 2>/dev/null || echo unknown)}
printf 'commit %s\n\n| part | status | seconds |\n|---|---|---|\n' "$commit" >"$out/summary.md"

# Runs a command for at most so many seconds: part NAME SECONDS COMMAND...
part() {
  local name=$1 limit=$2 status start=$SECONDS said='done'
  shift 2
  [[ ${#tiny[@]} -eq 0 ]] || limit=$((limit * 10))
  # TERM first: a training run saves and ends.
  timeout -k 15 "$limit" "$@" >"$out/$name.md" 2>"$scratch/$name.log"
  status=$?
  if [[ $status -ne 0 ]]; then
    said="failed with status $status"
    [[ $status -ne 124 ]] || said="stopped after $limit s"
    touch "$scratch/$name.failed"
    printf '\n%s; its last words:\n\n' "$said" >>"$out/$name.md"
    tail -n 15 "$scratch/$name.log" | sed 's/^/    /' >>"$out/$name.md"
  fi
  printf '| %s | %s | %s |\n' "$name" "$said" $((SECONDS - start)) | tee -a "$out/summary.md"
  return "$status"
}

# Says that a part is not run, and why: skip NAME WHY
skip() { printf '| %s | not run: %s | 0 |\n' "$@" | tee -a "$out/summary.md"; }

# Trains on sums for few updates: train NAME SECONDS CONFIG ARGUMENTS...
train() {
  local name=$1 limit=$2 config=$3 size=(
    --config.rollout.problems_per_step=16 --config.rollout.samples_per_problem=8
    --config.train.num_steps=10
  )
  shift 3
  [[ ${#tiny[@]} -eq 0 ]] || size=(
    --config.rollout.problems_per_step=2 --config.rollout.samples_per_problem=2
    --config.rollout.turn_tokens='(8,8)' --config.train.num_steps=2
  )
  part "$name" "$limit" env XLA_PYTHON_CLIENT_PREALLOCATE=false "$python" -m score_jax.main \
    --config="configs/$config" --workdir="$scratch/runs/$name" \
    --config.model.checkpoint="$weights" --config.train.progress=False "${size[@]}" "$@"
}

if [[ -n $wheels ]]; then
  part wheels 15 "$python" -m pip install --quiet --no-index --no-deps --no-compile \
    --target "$scratch/site" "$wheels"/*.whl
fi
peer=()
if "$python" -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("tunix"))'; then
  peer=(--peer_python="$(command -v "$python")")
fi

part decode 90 "$python" benchmarks/decode_roofline.py --preset=qwen2_5_1_5b --batch=64,256 \
  --dtype=bfloat16 --repeats=2 --commit="$commit" "${tiny[@]}"
part update 60 "$python" benchmarks/train_mfu.py --preset=qwen2_5_1_5b --batch=8 --length=1024 \
  --dtype=bfloat16 --remat=dots --repeats=3 --commit="$commit" "${tiny[@]}"
if [[ ${#peer[@]} -eq 0 ]]; then
  skip full_rows 'there is no Tunix'
else
  part full_rows 50 "$python" benchmarks/tunix_rollout.py --preset=smollm2_135m --batches 64 \
    --samples=8 --dtype=bfloat16 "${peer[@]}" "${tiny[@]}"
fi
part real_lengths 110 "$python" benchmarks/real_lengths.py --preset=smollm2_135m --problems=32 \
  --update_problems=16 --update_rows=8 --dtype=bfloat16 "${peer[@]}" "${tiny[@]}"
if [[ -z $weights ]]; then
  skip training 'SCORE_WEIGHTS is not set'
else
  train stage1 70 stage1_sums.py
  # Stage II and multi-turn RL run the programs that Stage I has compiled, side by side.
  train stage2 70 stage2_sums.py --config.init.path="$scratch/runs/stage1" &
  train multiturn_rl 70 baselines.py:multiturn_rl,stage1_sums
  wait
  part training 15 "$python" benchmarks/learning.py "$scratch"/runs/*
fi

failed=("$scratch"/*.failed)
[[ -e ${failed[0]} ]] || exit 0
exit ${#failed[@]}
