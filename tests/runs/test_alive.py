"""A sign of life changes while a block lasts, and goes with it."""

import time

import pytest
from etils import epath

from score_jax.runs.alive import last_sign, signs_of_life


def test_a_sign_changes_and_goes(tmp_path):
  path = epath.Path(tmp_path / 'sign')
  assert last_sign(path) == ''
  with pytest.raises(RuntimeError, match='of the block'), signs_of_life(path, 0.01):
    seen, deadline = set(), time.monotonic() + 20
    while len(seen - {''}) < 3 and time.monotonic() < deadline:
      seen.add(last_sign(path))
      time.sleep(0.001)
    assert len(seen - {''}) == 3
    raise RuntimeError('of the block')
  assert last_sign(path) == '' and not path.exists()
