"""The order of problems: a function of seed and step, shared by processes."""

import numpy as np
import pytest

from score_jax.rollout.order import problem_indices


@pytest.mark.parametrize(('num_problems', 'per_step'), [(12, 4), (13, 4), (7, 7), (5, 1)])
def test_an_epoch_repeats_no_problem(num_problems, per_step):
  steps = num_problems // per_step
  epochs = []
  for epoch in range(3):
    drawn = [problem_indices(3, epoch * steps + i, per_step, num_problems) for i in range(steps)]
    epochs.append(np.concatenate(drawn).tolist())
    assert len(set(epochs[-1])) == steps * per_step and set(epochs[-1]) <= set(range(num_problems))
  assert epochs[0] != epochs[1] != epochs[2]


def test_order_is_a_function_of_seed_and_step():
  again = [problem_indices(0, 5, 4, 100).tolist() for _ in range(2)]
  assert again[0] == again[1]
  assert problem_indices(1, 5, 4, 100).tolist() != again[0]


@pytest.mark.parametrize('process_count', [2, 4])
@pytest.mark.parametrize('step', [0, 2, 7])
def test_processes_share_the_single_order(process_count, step):
  shares = [problem_indices(0, step, 8, 20, i, process_count) for i in range(process_count)]
  assert {len(share) for share in shares} == {8 // process_count}
  np.testing.assert_array_equal(np.concatenate(shares), problem_indices(0, step, 8, 20))


def test_order_refuses():
  with pytest.raises(ValueError, match='problems_per_step=8 is more than the 7 training problems'):
    problem_indices(0, 0, 8, 7)
  with pytest.raises(ValueError, match='problems_per_step=8 is not a multiple of 3 processes'):
    problem_indices(0, 0, 8, 20, 0, 3)
