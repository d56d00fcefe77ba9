"""Habits of the small policy's pretraining data."""

import dataclasses

import numpy as np
import pytest

from score_jax.tasks.arithmetic import is_held_out
from score_jax.tasks.mixture import Mixture, draw_example

MIXTURE = Mixture(0.5, 0.3, 0.2, 0.4, 0.25, {2: 1.0, 3: 1.0})
COUNT = 2000


def test_habits_are_as_frequent_as_asked_for():
  rng = np.random.default_rng(0)
  seen = {name: [] for name in ('worked_t1', 'wrong_t1', 'worked_t2', 'worked_again_t2', 'changed')}
  for _ in range(COUNT):
    example = draw_example(rng, MIXTURE)
    terms = [int(word.lstrip('+')) for word in example.question.split()[:-1]]
    assert not is_held_out(terms)
    first, second = (text.split() for text in (example.first, example.second))
    worked = {1: len(first) > 2, 2: len(second) > 2}
    is_right = int(first[-1]) == sum(terms) % 10
    assert example.is_first_target == is_right
    seen['worked_t1'].append(worked[1])
    seen['wrong_t1'].append(not is_right)
    seen['worked_again_t2' if worked[1] else 'worked_t2'].append(worked[2])
    seen['changed'].append(not worked[2] and first[-1] != second[-1])
    assert not worked[2] or int(second[-1]) == sum(terms) % 10
  wanted = dataclasses.asdict(MIXTURE) | {'changed': MIXTURE.changed_t2}
  for name, found in seen.items():
    share = wanted[name]
    assert abs(np.mean(found) - share) < 4 * (share * (1 - share) / len(found)) ** 0.5, name


@pytest.mark.parametrize('name', ['worked_t2', 'worked_again_t2'])
def test_work_at_turn_2_is_not_taught(name):
  with pytest.raises(ValueError, match='must not be above worked_t1=0.5'):
    dataclasses.replace(MIXTURE, **{name: 0.6})
