"""Trains and evaluates rows of a replication in this process, each with one seed."""

import dataclasses
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence

import jax
from etils import epath
from ml_collections import ConfigDict

from score_jax.evaluation import protocol
from score_jax.evaluation.evaluate import evaluate, make_records
from score_jax.evaluation.measurement import what_it_depends_on
from score_jax.replication.rows import ReplicationRow, row_config, seed_dir
from score_jax.replication.whole import what_is_wrong
from score_jax.rollout.sampler import EVAL_STEP, EpisodeRow, Sampler
from score_jax.rollout.text import Prompts
from score_jax.runs.files import to_json, write_atomic
from score_jax.runs.lock import one_writer
from score_jax.setup import run as setup_run
from score_jax.setup.policy import Policy
from score_jax.setup.run import Setup
from score_jax.tasks.base import Task
from score_jax.training import imitate, pretraining, train
from score_jax.training.loop import exit_status

# Names the random keys of votes, apart from those of evaluations.
VOTE_STEP = EVAL_STEP - 2
VOTE_TEMPERATURE = 0.7
# [seconds] for the row's process of a replication that was killed: it saves what it has and ends.
_PATIENCE_S = 60.0


def run_rows(
  config: ConfigDict,
  rows: Sequence[tuple[ReplicationRow, int]],
  workdir: epath.Path,
  about: Mapping,
) -> None:
  """Runs rows one after the other, each with its seed, as a program does.

  Args:
    config: of `configs/replicate_arithmetic.py`.
    rows: row and seed, each after the one that it starts from.
    workdir: of the replication.
    about: what `row.json` tells besides: commit and hardware.

  Raises:
    SystemExit: as `score_jax.training.loop.exit_status`.
  """
  with exit_status():
    for row, seed in rows:
      print(f'== {row.name}', flush=True)
      run_row(config, row, seed, workdir, about)


def run_row(
  config: ConfigDict, row: ReplicationRow, seed: int, workdir: epath.Path, about: Mapping
) -> None:
  """Trains one row with one seed and evaluates its best checkpoint, or goes on with it.

  Args:
    config: of `configs/replicate_arithmetic.py`.
    row: the row; what it starts from is finished.
    seed: of the run.
    workdir: of the replication.
    about: what `row.json` tells besides: commit and hardware.
  """
  folder = seed_dir(workdir, row.name, seed)
  if (folder / 'row.json').exists():
    return
  start_s = time.monotonic()
  with one_writer(folder, _PATIENCE_S):
    run = row_config(config, row, seed, workdir)
    found = {'row': row.name, 'seed': seed} | dict(about)
    if row.makes_base:
      pretraining.make_base(run, folder)
    else:
      found |= _train_and_evaluate(config, row, run, workdir, found)
    found['seconds'] = round(time.monotonic() - start_s, 1)
    write_atomic(folder / 'row.json', json.dumps(found, indent=2) + '\n')


def _train_and_evaluate(config, row: ReplicationRow, run, workdir, about) -> dict:
  folder, start_s = seed_dir(workdir, row.name, run.seed), time.monotonic()
  setup = setup_run.prepare(run, folder if row.num_steps else None)
  try:
    policy = Policy.of_base(run, setup.base)
    if row.num_steps:
      (imitate.imitate if run.supervised.method else train.train)(setup, folder)
      policy = Policy.of_run(run, setup.base, str(folder), run.init.which)
    trained_s = round(time.monotonic() - start_s, 1)
    counts = {
      name: _evaluate(config, setup, policy, name, workdir, folder, about)
      for name in row.evaluations
    }
  finally:
    setup.task.close()
  # Not what the log holds: of that, something may have been lost before this start.
  updates = run.train.num_steps if row.num_steps and not run.supervised.method else 0
  return {
    'num_problems': run.eval.num_problems or len(setup.task.test),
    'records': counts,
    'updates': updates,
    'episodes': updates * run.rollout.problems_per_step * run.rollout.samples_per_problem,
    'trained_s': trained_s,
  }


def _evaluate(config, setup: Setup, policy: Policy, name, workdir, folder, about) -> int:
  """Makes one evaluation unless it is there and whole; returns how many problems it has."""
  run, forced = setup.config, None
  num_problems = config.num_vote_problems if name == 'votes' else run.eval.num_problems
  split = 'train' if name == 'train' else 'test'
  if split == 'train':  # there may be fewer of them
    num_problems = min(num_problems, len(setup.task.train))
  prompts = protocol.make_prompts(policy, setup.task, num_problems, split)
  count = len(prompts.problems)
  if not what_is_wrong(folder, name, count):
    return count
  if name == 'votes':
    write_votes(prompts, setup.task, policy, folder / 'votes.jsonl')
    return count
  temperature = 1.0 if name == 'sampled' else 0.0
  if name == 'turns':
    first, *later = run.eval.turn_tokens or run.rollout.turn_tokens
    run = run.copy_and_resolve_references()
    run.eval.turn_tokens = (first, *[later[-1]] * (config.num_turns - 1))
  if name == 'fixed':
    forced = base_first_answers(seed_dir(workdir, 'base', run.seed), prompts, setup)
  policy = dataclasses.replace(policy, config=run)
  sampler = protocol.make_sampler(policy, setup.task, temperature)
  first = "the base model's samples" if forced else "the policy's own"
  measurement = what_it_depends_on(policy, sampler, prompts, first_answers=first, split=split)
  turns = (0, 2) if run.eval.protocol == 'self_refine' else None
  found = evaluate(sampler, prompts, setup.task, forced, turns)
  about = {**about, 'temperature': temperature}
  protocol.save_evaluation(folder / f'eval_{name}', found, measurement, about)
  return count


def base_first_answers(base: epath.Path, prompts: Prompts, setup: Setup) -> list[list[int]]:
  """The base model's sampled first answers, the same for every row of a seed.

  Args:
    base: the base row's run directory.
    prompts: the evaluation problems.
    setup: gives the tokenizer.

  Returns:
    For each problem the answer's token ids, its end included unless it was cut off.
  """
  tokenizer = setup.base.tokenizer
  lines = (base / 'eval_sampled' / 'records.jsonl').read_text().splitlines()
  records = {r['id']: r for r in map(json.loads, lines)}
  end = [tokenizer.end_of_turn_ids[0]]

  def ids(record):
    answer = tokenizer.encode(record['answers'][0])
    return answer + ([] if record['truncated'][0] else end)

  return [ids(records[problem.id]) for problem in prompts.problems]


def write_votes(prompts: Prompts, task: Task, policy: Policy, path: epath.Path) -> None:
  """Samples what inference scaling compares: 32 first answers, and 16 answers corrected once.

  Args:
    prompts: of the evaluation problems.
    task: of the row.
    policy: of the row.
    path: of the file.
  """
  sampler = protocol.make_sampler(policy, task, VOTE_TEMPERATURE)
  first = dataclasses.replace(sampler, spec=sampler.spec.first_turns(1))
  alone = _samples(first, prompts, task, range(32))
  pairs = _samples(sampler, prompts, task, range(32, 48))
  lines = []
  for i, problem in enumerate(prompts.problems):
    lines.append(
      {
        'id': problem.id,
        'level': problem.level,
        'parallel': _column(alone[i], 0, ''),
        'sequential': _column(pairs[i], 0, 'first_') | _column(pairs[i], 1, ''),
      }
    )
  write_atomic(path, ''.join(to_json(line) + '\n' for line in lines))


def _column(records: Sequence[Mapping], turn: int, prefix: str) -> dict:
  return {
    f'{prefix}finals': [r['finals'][turn] for r in records],
    f'{prefix}rewards': [r['rewards'][turn] for r in records],
  }


def _samples(sampler: Sampler, prompts: Prompts, task: Task, samples: range) -> list[list[dict]]:
  """Records of several samples of each problem."""
  both = list(zip(prompts.problems, prompts.ids, strict=True))
  problems = [problem for problem, _ in both for _ in samples]
  rows = [EpisodeRow(ids, problem.id, g) for problem, ids in both for g in samples]
  records, n = [], len(samples)
  for part, episode in sampler.sample(rows, VOTE_STEP):
    records += make_records(problems[part], episode, task, sampler.tokenizer)
  return [records[i : i + n] for i in range(0, len(records), n)]


def hardware() -> str:
  """What this runs on, in words."""
  device = jax.devices()[0]
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  return f'{len(jax.devices())} x {device.device_kind}, {cores} cores, {platform.machine()}'
