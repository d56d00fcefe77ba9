"""What lies in a directory of checkpoints, told without reading a state."""

import json
import logging

import pytest
from saved_states import save_all

from score_jax.runs import stored

REWARDS = {2: 0.5, 3: float('nan'), 10: 0.25}


def test_orbax_is_quiet_but_its_warnings_pass(tmp_path, caplog):
  caplog.set_level(logging.DEBUG, logger='absl')
  save_all(tmp_path, {1: 0.0})
  assert not [r for r in caplog.records if '/orbax/' in r.pathname]
  stored.quiet_orbax()
  assert len(logging.getLogger('absl').filters) == 1


def test_the_best_step_is_the_later_of_equals():
  assert stored.best_step([1, 2, 3, 4], {1: 0.1, 2: 0.7, 3: 0.7, 9: 1.0}) == 3
  assert stored.best_step([1, 2], {}) is None


@pytest.mark.parametrize('step', [-1, True, 1.0, '1'])
def test_a_step_is_a_whole_number(step):
  with pytest.raises(ValueError, match='a whole number of 0 or above'):
    stored.make_body(step, {}, {}, 0.0)


def test_rewards_are_those_of_committed_checkpoints_that_can_be_read(tmp_path, caplog):
  assert stored.committed_steps(tmp_path / 'nowhere') == []
  bodies = {step: stored.make_body(step, {}, {}, reward) for step, reward in REWARDS.items()}
  for step, body in bodies.items():
    (tmp_path / str(step) / 'metadata').mkdir(parents=True)
    path = tmp_path / str(step) / 'metadata' / 'metadata'
    path.write_text(json.dumps(stored.sealed(body)))
  (tmp_path / 'damaged-7').mkdir()
  (tmp_path / '8.orbax-checkpoint-tmp-1').mkdir()
  assert stored.committed_steps(tmp_path) == [2, 3, 10]
  assert stored.read_body(tmp_path / '10') == bodies[10]
  assert stored.read_rewards(tmp_path) == {2: 0.5, 10: 0.25}
  # Another reward under the checksum of the first.
  path = tmp_path / '10' / 'metadata' / 'metadata'
  path.write_text(path.read_text().replace('0.25', '0.75'))
  with pytest.raises(stored.DamagedCheckpointError, match=r'damaged \(checksum\)'):
    stored.read_body(tmp_path / '10')
  assert stored.read_rewards(tmp_path) == {2: 0.5}
  assert 'step 10 counts as damaged' in caplog.text
