"""Which problems a step trains on: a function of (seed, step), so there is no state to save."""

import numpy as np


def problem_indices(
  seed: int,
  step: int,
  problems_per_step: int,
  num_problems: int,
  process_index: int = 0,
  process_count: int = 1,
) -> np.ndarray:
  """Draws the problems of one step, without repeats until all have been seen.

  An epoch is a permutation of its own; its last problems that do not fill a step are left for
  another epoch. A process takes a contiguous part, so a problem's samples stay together.

  Args:
    seed: the run's.
    step: counted from 0.
    problems_per_step: P, over all processes.
    num_problems: size of the data set.
    process_index: this process.
    process_count: all processes.

  Returns:
    i64[P / process_count] indices.

  Raises:
    ValueError: if there are fewer problems than a step takes, or P does not divide.

  Example:
    >>> a, b = (problem_indices(0, step, 2, 4) for step in (0, 1))
    >>> sorted([*a.tolist(), *b.tolist()])
    [0, 1, 2, 3]
  """
  P = problems_per_step
  if num_problems < P:
    raise ValueError(
      f'config.rollout.problems_per_step={P} is more than the {num_problems} training problems'
    )
  if P % process_count:
    raise ValueError(
      f'config.rollout.problems_per_step={P} is not a multiple of {process_count} processes'
    )
  epoch, place = divmod(step, num_problems // P)
  order = np.random.default_rng((seed, epoch)).permutation(num_problems)
  share = P // process_count
  first = place * P + process_index * share
  return order[first : first + share]
