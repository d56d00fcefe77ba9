"""Repair of forced wrong answers, and failing ones collected, with a model that can only count."""

import jax
import numpy as np
import pytest
from small_models import Digits, counting_model, counting_sampler, digit_task

from score_jax.evaluation import repair
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.text import encode_prompts

COUNTER = counting_model()[1]


def test_a_forced_answer_is_corrected_in_one_turn():
  task = digit_task(['1', '22', '3', '44', '55'], ['12', '3', '1234', '78', '111'])
  found = repair.evaluate_repair(
    counting_sampler(),
    encode_prompts(task.test, task, Digits(), 3),
    task,
    lambda problem: problem.attempt,
  )
  # '1234' and its end take five tokens, one more than the model itself has for turn 1.
  first = ['12', '3', '1234', '78', '111']
  assert [r['id'] for r in found.records] == [0, 1, 2, 3, 4] and found.num_left_out == 0
  assert [r['answers'] for r in found.records] == [[text, '78'] for text in first]
  assert [r['rewards'] for r in found.records] == [[0, 1], [0, 1], [0, 1], [1, 1], [0, 1]]
  assert [r['tokens'] for r in found.records] == [[len(text) + 1, 3] for text in first]
  assert not any(any(r['truncated']) for r in found.records)
  means = {key: m['mean'] for key, m in found.metrics.items()}
  assert (means['acc_t1'], means['acc_t2'], means['i2c'], means['changed']) == (0.2, 1, 0.8, 0.8)
  counts = {key: found.metrics[key]['denominator'] for key in ('e_minus', 'e_plus')}
  assert (means['e_minus'], means['e_plus'], *counts.values()) == (0, 0, 1, 4)


def test_repair_takes_two_turns():
  task = digit_task(['1'], ['2'])
  one = RolloutSpec(3, (4,), (), (9,))
  with pytest.raises(ValueError, match='repair takes two turns'):
    prompts = encode_prompts(task.test, task, Digits(), 3)
    repair.evaluate_repair(
      counting_sampler(spec=one), prompts, task, lambda problem: problem.attempt
    )


def collect(params, task, batch=4, num_samples=3, num_kept=2):
  prompts = encode_prompts(task.test, task, Digits(), 3)
  policy = counting_sampler(params, batch=batch, temperature=1.0)
  return repair.collect_failures(policy, prompts, task, num_samples, num_kept)


def test_failing_answers_are_kept_once():
  """Prompts 5, 6 and 8 are answered 678, 78 and nothing; only 78 is right."""
  found = collect(COUNTER, digit_task(['5', '6', '8', '5']))
  assert [(f.problem.id, f.text, f.reason) for f in found.kept] == [
    (0, '678', 'wrong'),
    (3, '678', 'wrong'),
  ]
  assert found.reasons == {'wrong': 9, 'correct': 3}


def test_at_most_so_many_failures_of_a_problem_are_kept():
  flat = jax.tree.map(np.zeros_like, COUNTER) | {'embedder': COUNTER['embedder']}
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
