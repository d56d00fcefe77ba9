"""Verdicts of each process, kept until no resume can need them."""

import numpy as np
import pytest

from score_jax.runs import verdicts


def test_verdicts_of_each_process_are_kept_until_dropped(tmp_path):
  mine, other = verdicts.VerdictStore(tmp_path, 0), verdicts.VerdictStore(tmp_path, 1)
  assert mine.get(1) is None
  mine.drop_through(5)
  for step in (1, 2, 10):
    mine.put(step, np.full((2, 2), step))
  other.put(1, {'rows': [None, 0.5]})
  mine.drop_through(2)
  assert [mine.get(step) for step in (1, 2, 10)] == [None, None, [[10, 10], [10, 10]]]
  assert verdicts.VerdictStore(tmp_path, 1).get(1) == {'rows': [None, 0.5]}


def test_a_damaged_verdict_is_named(tmp_path):
  store = verdicts.VerdictStore(tmp_path)
  store.put(3, [1])
  [path] = (tmp_path / 'verdicts').iterdir()
  path.write_text('{"step": 3, "verd')
  with pytest.raises(ValueError, match=rf'{path.name} is damaged .*delete it'):
    store.get(3)
  path.write_text('{"step": 4, "verdicts": []}')
  with pytest.raises(ValueError, match='does not hold the verdicts of step 3'):
    store.get(3)
