"""Repair of given programs, and sets of failing ones, with a model that can only count."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from score_jax.core.config import default_config
from score_jax.core.sharding import make_mesh
from score_jax.evaluation import repair
from score_jax.model.decoder import Decoder, DecoderConfig, abstract_params
from score_jax.rollout import sampler as sampler_lib
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.sampler import EpisodeRow, Sampler
from score_jax.rollout.text import encode_prompts
from score_jax.setup.task import make_checker
from score_jax.tasks import base, mbpp_r

EOT = 9  # the counter: after token v comes v + 1, and 9 ends a turn
DECODER = DecoderConfig(
  vocab_size=12,
  num_layers=1,
  embed_dim=16,
  mlp_dim=8,
  num_heads=2,
  num_kv_heads=1,
  head_dim=4,
  tie_embeddings=False,
)


class Digits:
  """A tokenizer of digits."""

  vocab_size, pad_id, end_of_turn_ids = 12, 0, (EOT,)

  def encode(self, text):
    return [int(digit) for digit in text]

  prompt_ids = followup_ids = encode

  def decode(self, ids):
    return ''.join(str(i) for i in ids if i != EOT)


@pytest.fixture(scope='module')
def counter():
  params = jax.tree.map(lambda x: np.ones(x.shape, np.float32), abstract_params(DECODER)[0])
  for room, name in (('attn', 'o'), ('mlp', 'down')):
    params['layers'][room][name] = np.zeros_like(params['layers'][room][name])
  params['embedder']['embedding'] = np.eye(12, 16, dtype=np.float32)
  params['head']['kernel'] = 50 * np.roll(np.eye(16, 12, dtype=np.float32), 1, axis=1)
  return params


def digit_task(questions, attempts=None, answer='78'):
  """The right answer is what the counter says after the instruction, '6'."""
  attempts = attempts or [''] * len(questions)
  rows = [
    base.Problem(i, q, answer, attempt=a)
    for i, (q, a) in enumerate(zip(questions, attempts, strict=True))
  ]
  return base.Task(
    name='digits',
    train=[],
    test=rows,
    prompt=lambda problem: problem.question,
    instruction='6',
    grade=lambda problems, texts: [
      base.Verdict(float(p.answer == t), 'correct' if p.answer == t else 'wrong')
      for p, t in zip(problems, texts, strict=True)
    ],
    final=lambda text: text or None,
  )


SPEC = RolloutSpec(
  prompt_tokens=3, turn_tokens=(4, 5), followup_ids=((6,),), end_of_turn_ids=(EOT,)
)


def sampler(params, spec=SPEC, batch=2, temperature=0.0):
  mesh = make_mesh((1, 1, 1), jax.devices()[:1])
  return Sampler(Decoder(DECODER), spec, params, Digits(), batch, temperature, 0, mesh)


def test_a_given_program_is_corrected_in_one_turn(counter):
  task = digit_task(['1', '22', '3', '4', '5'], ['12', '3', '1234', '78', '111'])
  found = repair.evaluate_repair(
    sampler(counter),
    encode_prompts(task.test, task, Digits(), 3),
    task,
    lambda problem: problem.attempt,
  )
  # '1234' and its end take five tokens, one more than the model itself has for turn 1.
  given = ['12', '3', '1234', '78', '111']
  assert [r['id'] for r in found.records] == [0, 1, 2, 3, 4] and found.num_left_out == 0
  assert [r['answers'] for r in found.records] == [[text, '78'] for text in given]
  assert [r['rewards'] for r in found.records] == [[0, 1], [0, 1], [0, 1], [1, 1], [0, 1]]
  assert [r['tokens'] for r in found.records] == [[len(text) + 1, 3] for text in given]
  assert not any(any(r['truncated']) for r in found.records)
  means = {key: m['mean'] for key, m in found.metrics.items()}
  assert (means['acc_t1'], means['acc_t2'], means['i2c'], means['changed']) == (0.2, 1, 0.8, 0.8)


@pytest.mark.parametrize(('batch', 'shared'), [(4, 4), (8, 4), (6, 2), (3, 1), (2, 2)])
def test_samples_of_a_problem_share_its_prompt(counter, monkeypatch, batch, shared):
  """As far as batches cut rows into groups of samples; the last batch is filled up."""
  rows = [EpisodeRow([i + 1] * (i % 3 + 1), i, g) for i in range(3) for g in range(4)]
  alone = sampler(counter, batch=batch, temperature=1.0)
  together = dataclasses.replace(alone, samples_per_prompt=4)
  groups, rollout = [], sampler_lib.rollout

  def watched(*args):
    groups.append(args[-1])
    return rollout(*args)

  monkeypatch.setattr(sampler_lib, 'rollout', watched)
  want, have = ([e.tokens for _, e in s.sample(rows, 0)] for s in (alone, together))
  assert set(groups) == {1, shared}
  assert [x.tolist() for x in have] == [x.tolist() for x in want]


def test_repair_takes_two_turns(counter):
  task = digit_task(['1'], ['2'])
  one = RolloutSpec(3, (4,), (), (EOT,))
  with pytest.raises(ValueError, match='repair takes two turns'):
    prompts = encode_prompts(task.test, task, Digits(), 3)
    repair.evaluate_repair(sampler(counter, one), prompts, task, lambda problem: problem.attempt)


def collect(params, task, batch=4, num_samples=3, num_kept=2):
  prompts = encode_prompts(task.test, task, Digits(), 3)
  policy = sampler(params, batch=batch, temperature=1.0)
  return repair.collect_failures(policy, prompts, task, num_samples, num_kept)


def test_failing_answers_are_kept_once(counter):
  """Prompts 5, 6 and 8 are answered 678, 78 and nothing; only 78 is right."""
  found = collect(counter, digit_task(['5', '6', '8', '5']))
  assert [(f.problem.id, f.text, f.reason) for f in found.kept] == [
    (0, '678', 'wrong'),
    (3, '678', 'wrong'),
  ]
  assert found.reasons == {'wrong': 9, 'correct': 3}


def test_at_most_so_many_failures_of_a_problem_are_kept(counter):
  flat = jax.tree.map(np.zeros_like, counter) | {'embedder': counter['embedder']}
  task = digit_task(['1', '2'])
  every = collect(flat, task, num_samples=8, num_kept=8).kept
  some = collect(flat, task, num_samples=8, num_kept=2).kept
  for i in range(2):
    texts = [f.text for f in every if f.problem.id == i]
    assert len(texts) == len(set(texts)) > 2
    assert [f.text for f in some if f.problem.id == i] == texts[:2]
  # The same whatever lies beside a row in its batch.
  assert [f.text for f in collect(flat, task, batch=3, num_samples=8, num_kept=8).kept] == [
    f.text for f in every
  ]


def test_a_set_is_read_back(data_dir, tmp_path):
  config = default_config()
  rows = [
    {
      'task_id': 11 + i,
      'question': f'Q{i}. Your code should pass these tests:\n\nassert f() == {i}',
      'tests': f'assert f() == {i}',
      'program': 'def f():\r\n  return "é"\n',
      'reason': 'wrong',
    }
    for i in range(2)
  ]
  (tmp_path / 'programs.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  checker = make_checker(config)
  task = mbpp_r.load_mbpp_r(tmp_path, data_dir, checker, cache=tmp_path / 'cache')
  assert [(p.id, p.question, p.answer, p.attempt) for p in task.test] == [
    (i, row['question'], row['tests'], row['program']) for i, row in enumerate(rows)
  ]
  assert task.prompt(task.test[1]).endswith(f'{rows[1]["question"]}\n\n[BEGIN]\n')
  given = [mbpp_r.forced_answer(problem) for problem in task.test]
  try:
    assert [v.reward for v in task.grade(task.test, given)] == [0.0, 0.0]
  finally:
    task.close()


def test_repair_set_names_what_is_missing(run_python):
  done = run_python('-m', 'score_jax.repair_set')
  assert done.returncode == 2 and '--set is not set' in done.stderr
  done = run_python('-m', 'score_jax.repair_set', '--set=x', '--config=configs/stage1_sums.py')
  assert done.returncode == 2 and 'Traceback' not in done.stderr


def test_a_set_is_evaluated_from_the_command_line(run_python, data_dir, tmp_path):
  """With the small model, which knows no letters: every program stays as wrong as it was."""
  row = {'task_id': 11, 'question': 'Q.', 'tests': 'assert f()', 'program': 'def f():\n  pass'}
  lines = ''.join(json.dumps(row | {'reason': str(i)}) + '\n' for i in range(3))
  (tmp_path / 'programs.jsonl').write_text(lines)
  done = run_python(
    '-m',
    'score_jax.repair_set',
    '--mode=evaluate',
    f'--set={tmp_path}',
    f'--workdir={tmp_path / "out"}',
    '--num_problems=2',
    '--config=configs/stage1_code.py:smollm2_135m',
    '--config.model.checkpoint=embedded',
    '--config.model.preset=',
    f'--config.data.path={data_dir}',
    f'--config.data.cache={tmp_path / "cache"}',
    '--config.rollout.prompt_tokens=16',
    '--config.rollout.turn_tokens=(7,10)',
  )
  assert done.returncode == 0, done.stderr
  metrics = json.loads((tmp_path / 'out' / 'metrics.json').read_text())
  assert metrics['num_problems'] == 2 and metrics['set'] == str(tmp_path)
  assert metrics['acc_t1']['mean'] == metrics['acc_t2']['mean'] == 0
  records = (tmp_path / 'out' / 'records.jsonl').read_text().splitlines()
  assert [json.loads(record)['id'] for record in records] == [0, 1]
