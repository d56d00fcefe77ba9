"""Makes work directories of a replication, with numbers drawn here, and reads them by loops."""

import json

import numpy as np
from makers import ROOT

from score_jax.objective.stages import multiturn_rl
from score_jax.replication.rows import ReplicationRow

PLAIN = multiturn_rl(0.01)  # a stage of two turns
# A replication config with little to do; turn 1 has room for an answer at once and no work. Rows
# are changed by {changes}.
TINY_STEPS = 15
TINY = """
import dataclasses
from score_jax.core.config import read_config

def get_config():
  c = read_config({config!r})
  c.run.task.num_train, c.run.task.num_test = 100, 128
  c.run.rollout.problems_per_step, c.run.rollout.samples_per_problem = 4, 4
  c.run.rollout.turn_tokens = (3, 6)
  c.run.model.scan_unroll = 1
  c.run.train.length_bucket = 16
  c.run.train.checkpoint_every_steps = 1
  c.run.eval.num_problems = c.run.eval.batch = 64  # one shape for all
  c.num_vote_problems, c.num_turns = 4, 3
  c.rows = tuple(
    dataclasses.replace(row, num_steps=min(row.num_steps, {steps}){changes}) for row in c.rows
  )
  return c
"""
NUM_PROBLEMS = 60
# Row -> chance that a first answer is right, a wrong one set right, a right one spoilt, a wrong one
# that stays wrong changed.
EFFECTS = {
  'base': (0.5, 0.05, 0.3, 0.2),
  'star_d': (0.55, 0.03, 0.02, 0.02),
  'multiturn_rl': (0.6, 0.02, 0.01, 0.02),
  'random_reward': (0.5, 0.05, 0.3, 0.2),
  'score': (0.6, 0.6, 0.0, 0.4),
  'no_bonus': (0.6, 0.5, 0.02, 0.3),
}


def _row(name, title, group, paper='', **more):
  return ReplicationRow(name, title, group, PLAIN, paper=paper, **more)


ROWS = [
  _row('base', 'Base model', 'method', 'base'),
  _row('self_refine', 'Self-Refine', 'method', 'self_refine', not_applicable='too | small'),
  _row('star_d', 'STaR (D)', 'method', 'star_d'),
  _row('pair_sft_d', 'Pair-SFT (D)', 'method', 'pair_sft_d'),
  _row('last_turn_rl', 'Multi-turn RL, last turn rewarded', 'method'),
  _row('multiturn_rl', 'Multi-turn RL', 'method'),
  _row('random_reward', 'Random rewards', 'method'),
  _row('score', 'SCoRe', 'method', 'score'),
  _row('no_bonus', 'no bonus', 'ablation', 'no_bonus'),
  _row('turns_base', 'Base model, three turns', 'turns', 'turns_base', seeds=1),
  _row('alpha_0', 'α = 0', 'sweep', sweep='alpha', value=0.0, seeds=1),
  _row('alpha_30', 'α = 30', 'sweep', sweep='alpha', value=30.0, seeds=1),
  _row('k2', 'k2', 'sweep', sweep='KL estimator', value='k2', seeds=1),
  _row('narrow', 'narrow mixture', 'regime', seeds=1),
]


def write_tiny(folder, changes=''):
  """Writes the config of a tiny replication; returns its path."""
  path, config = folder / 'config.py', f'{ROOT}/configs/replicate_arithmetic.py'
  path.write_text(TINY.format(config=config, steps=TINY_STEPS, changes=changes))
  return path


def records_of(folder, kind):
  """The records of one evaluation of a seed."""
  return [json.loads(s) for s in (folder / f'eval_{kind}/records.jsonl').read_text().splitlines()]


def answer_text(digit):
  return f'3 + 4 is {digit}, so the answer is {digit}'


def make_records(rng, effect, num_turns=2, num_problems=NUM_PROBLEMS):
  """Records of an evaluation whose probabilities are `effect`."""
  right_first, corrects, spoils, moves = effect
  records = []
  for n in range(num_problems):
    finals = ['7' if rng.random() < right_first else '5']
    for _ in range(num_turns - 1):
      if finals[-1] == '7':
        now = '6' if rng.random() < spoils else '7'
      elif rng.random() < corrects:
        now = '7'
      else:
        now = str(rng.integers(10, 99)) if rng.random() < moves else finals[-1]
      finals.append(now)
    records.append(
      {
        'id': 1000 + n,
        'level': str(2 + n % 3),
        'answers': [answer_text(final) for final in finals],
        'finals': finals,
        'rewards': [float(final == '7') for final in finals],
        'truncated': [n % 3 == 0] * num_turns,
      }
    )
  return records


def write_lines(path, records):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(''.join(json.dumps(record) + '\n' for record in records))


def make_votes(rng, gain):
  """Votes in which a parallel sample is right half of the time, and a corrected one more often."""

  def samples(count, right):
    rewards = [float(x) for x in rng.random(count) < right]
    return {
      'finals': ['7' if x else str(rng.integers(10, 13)) for x in rewards],
      'rewards': rewards,
    }

  return [
    {'id': n, 'level': '2', 'parallel': samples(32, 0.4), 'sequential': samples(16, 0.4 + gain)}
    for n in range(NUM_PROBLEMS)
  ]


def make_training(rng, first, last, num_steps=20):
  return [
    {
      'step': step,
      'train/reward_t1': 0.5 + 0.1 * step / num_steps + 0.01 * rng.random(),
      'train/reward_t2': 0.5 + 0.2 * step / num_steps + 0.01 * rng.random(),
      'train/changed_t12': first + (last - first) * (step - 1) / (num_steps - 1),
    }
    for step in range(1, num_steps + 1)
  ]


def make_seed(folder, name, seed, effect, extras=True):
  """One finished seed of a row."""
  rng = np.random.default_rng([seed, *name.encode()])
  for kind in ('greedy', 'sampled', 'fixed') if extras else ('greedy', 'sampled'):
    num_turns = 3 if name.startswith('turns_') else 2
    write_lines(folder / f'eval_{kind}' / 'records.jsonl', make_records(rng, effect, num_turns))
  if name == 'score':
    write_lines(folder / 'eval_turns' / 'records.jsonl', make_records(rng, effect, 10))
    write_lines(folder / 'votes.jsonl', make_votes(rng, 0.35))
  if name in ('score', 'stage1', 'multiturn_rl', 'last_turn_rl', 'narrow'):
    ends = (0.4, 0.3) if name != 'narrow' else (0.4, 0.1)
    write_lines(folder / 'metrics' / 'metrics-00000001.jsonl', make_training(rng, *ends))
  facts = {'commit': 'abc123', 'hardware': 'two cores', 'seconds': 90.0, 'num_problems': 60}
  (folder / 'row.json').write_text(json.dumps(facts))


def make_rows(path):
  """Rows with two and three seeds, one of each kind of trouble."""
  for name, effect in EFFECTS.items():
    for seed in range(2 if name == 'no_bonus' else 3):
      make_seed(path / name / f'seed{seed}', name, seed, effect)
  for name in ('alpha_0', 'alpha_30', 'k2', 'narrow', 'turns_base'):
    make_seed(path / name / 'seed0', name, 0, EFFECTS['no_bonus'], extras=False)
  (path / 'pair_sft_d' / 'seed0').mkdir(parents=True)
  (path / 'pair_sft_d' / 'error.txt').write_text('Traceback:\n  ...\nValueError: <b>no</b> pairs\n')
  (path / 'no_bonus' / 'seed2').mkdir()


def read_seeds(workdir, name, kind='greedy'):
  """All records of a row, by plain means: {seed: {problem: record}}."""
  found = {}
  for seed in range(3):
    path = workdir / name / f'seed{seed}' / f'eval_{kind}' / 'records.jsonl'
    if path.exists():
      lines = path.read_text().splitlines()
      found[seed] = {record['id']: record for record in map(json.loads, lines)}
  return found


def value(record, key):
  before, now = record['rewards'][-2:]
  return {
    'acc_t1': record['rewards'][0],
    'acc_t2': record['rewards'][1],
    'delta': now - before,
    'i2c': float(before == 0 and now == 1),
    'c2i': float(before == 1 and now == 0),
    'changed': float(record['finals'][-1] != record['finals'][-2]),
  }[key]
