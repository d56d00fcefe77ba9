"""A set to repair is made of the programs that fail, with a model that can only count."""

import dataclasses
import types

import jax
import pytest
from small_models import Digits, counting_model, digit_task

from score_jax.core.config import default_config
from score_jax.core.sharding import make_mesh
from score_jax.evaluation import mbpp_r
from score_jax.setup.policy import Policy


class Programs(Digits):
  """Digits that are read as programs."""

  def decode(self, ids):
    return f'def f():\n  return {super().decode(ids)}\nassert f()\n[DONE]'


@pytest.fixture
def policy():
  decoder, params = counting_model()
  config = default_config()
  config.rollout.update(prompt_tokens=3, turn_tokens=(4, 5))
  config.eval.batch = 4
  mesh = make_mesh((1, 1, 1), jax.devices()[:1])
  base = types.SimpleNamespace(decoder=decoder, tokenizer=Programs(), mesh=mesh)
  return Policy(config, base, params, 'counter', 0)


@pytest.mark.parametrize(('split', 'first_id'), [('test', 11), ('train', 601)])
def test_a_set_is_the_failing_programs(policy, split, first_id):
  # After prompts 5, 6 and 7 comes 678, 78 and 8.
  task = digit_task(['5', '6', '7', '5'], answer='def f():\n  return 78\nassert f()\n[DONE]')
  task = dataclasses.replace(task, train=task.test)
  records, about = mbpp_r.build_set(policy, task, split, 0, 2, 1, temperature=1.0)
  assert records == [
    {
      'task_id': first_id + i,
      'question': question,
      'tests': 'def f():\n  return 78\nassert f()\n[DONE]',
      'program': f'def f():\n  return {said}\nassert f()\n',
      'reason': 'wrong',
    }
    for i, question, said in ((0, '5', '678'), (2, '7', '8'), (3, '5', '678'))
  ]
  assert about == {
    'split': split,
    'samples': 2,
    'keep': 1,
    'num_problems': 4,
    'num_problems_failed': 3,
    'num_programs': 3,
    'sampled': {'wrong': 6, 'correct': 2},
  }


def test_where_nothing_fails_there_is_no_set(policy):
  task = digit_task(['6'], answer='def f():\n  return 78\nassert f()\n[DONE]')
  with pytest.raises(ValueError, match='no program failed.*: 2 correct'):
    mbpp_r.build_set(policy, task, 'test', 0, 2, 1, temperature=1.0)
