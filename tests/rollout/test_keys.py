"""An episode's random key is a function of what the episode is."""

import itertools

import jax
import numpy as np

from score_jax.rollout.keys import episode_keys


def keys(seed, step, problems, samples):
  found = episode_keys(seed, step, np.array(problems), np.array(samples))
  return [tuple(row) for row in jax.random.key_data(found).tolist()]


def test_equal_episodes_have_equal_keys_and_all_others_differ():
  episodes = list(itertools.product((0, 1, 7), (0, 1, 3)))  # (problem, sample), also exchanged
  places = list(itertools.product((0, 1), (0, 1, 7)))  # (seed, step)
  found = {place: keys(*place, *zip(*episodes, strict=True)) for place in places}
  assert len(set(itertools.chain(*found.values()))) == len(places) * len(episodes)
  # Neither the order of the rows nor their number makes a difference, nor where they lie.
  for place in places:
    assert keys(*place, *zip(*episodes[::-1], strict=True)) == found[place][::-1]
  assert keys(1, 7, [7], [3]) == found[1, 7][-1:]
  on_devices = episode_keys(1, 7, jax.numpy.array([7]), jax.numpy.array([3]))
  assert [tuple(jax.random.key_data(on_devices)[0].tolist())] == found[1, 7][-1:]
