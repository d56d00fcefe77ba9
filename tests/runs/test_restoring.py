"""States read back: what does not fit, damage that is noticed, and a part of a state."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saved_states import READS_FAIL, abstract, assert_same, make_state, save_all

from score_jax.runs import stored
from score_jax.runs.checkpoints import Checkpoints
from score_jax.runs.restoring import restore_subtree

pytestmark = READS_FAIL


def test_another_shape_dtype_or_tree_is_an_error_and_no_damage(tmp_path):
  save_all(tmp_path, {1: 0.0, 2: 0.0})
  other = abstract(make_state(0))
  other['trainable']['w'] = jax.ShapeDtypeStruct((20, 31), jnp.float32)
  other['opt'][1]['mu'] = jax.ShapeDtypeStruct((3, 4), jnp.bfloat16)
  other['more'] = other.pop('flag')
  with Checkpoints(tmp_path) as ckpts:
    with pytest.raises(ValueError) as error:
      ckpts.restore(other)
    assert ckpts.all_steps() == [1, 2]
  for line in [
    'trainable/w: float32[20, 30] in the checkpoint, float32[20, 31] in the program',
    'opt/1/mu: float32[3, 4] in the checkpoint, bfloat16[3, 4] in the program',
    'more: not in the checkpoint, bool[2] in the program',
    'flag: bool[2] in the checkpoint, not in the program',
  ]:
    assert line in str(error.value)


def damages(path):
  """Yields ways to spoil one file."""
  data = path.read_bytes()
  yield path.unlink
  yield lambda: path.write_bytes(data[: len(data) // 2])
  for place in (0, len(data) // 3, 2 * len(data) // 3):
    flipped = bytearray(data)
    flipped[place] ^= 0x40
    yield lambda flipped=flipped: path.write_bytes(flipped)


def test_no_damage_to_any_file_goes_unnoticed(tmp_path, caplog):
  save_all(tmp_path / 'good', {1: 0.1, 2: 0.2})
  num_noticed = 0
  for path in sorted((tmp_path / 'good' / '2').rglob('*')):
    for number in range(5) if path.is_file() else ():
      shutil.rmtree(tmp_path / 'bad', ignore_errors=True)
      shutil.copytree(tmp_path / 'good', tmp_path / 'bad')
      list(damages(tmp_path / 'bad' / path.relative_to(tmp_path / 'good')))[number]()
      caplog.clear()
      with Checkpoints(tmp_path / 'bad') as ckpts:
        restored = ckpts.restore(abstract(make_state(0)))
        assert_same(restored.state, make_state(restored.step))
        assert restored.metadata == {'position': restored.step * 3}
        if restored.step == 1:
          num_noticed += 1
          assert 'step 2' in caplog.text and 'step 1 is used instead' in caplog.text
          assert ckpts.all_steps() == [1] and (tmp_path / 'bad' / 'damaged-2').exists()
  assert num_noticed >= 20  # the files that matter, each in every way


def test_values_that_change_without_breaking_a_file_are_noticed(tmp_path, caplog):
  save_all(tmp_path / 'a', {1: 0.0, 2: 0.0})
  with Checkpoints(tmp_path / 'b') as other:
    state = make_state(2)
    state['opt'][1]['mu'] = state['opt'][1]['mu'].at[1, 1].add(1e-6)
    other.save(2, state, {'position': 6}, 0.0)
  shutil.rmtree(tmp_path / 'a' / '2' / 'state')
  shutil.copytree(tmp_path / 'b' / '2' / 'state', tmp_path / 'a' / '2' / 'state')
  with Checkpoints(tmp_path / 'a') as ckpts:
    assert ckpts.restore(abstract(make_state(0))).step == 1
  assert 'leaf "opt/1/mu" is not what was saved (checksum)' in caplog.text


def test_nothing_good_says_what_was_tried_and_moves_nothing(tmp_path):
  save_all(tmp_path, {1: 0.1, 2: 0.2})
  for step in '12':
    shutil.rmtree(tmp_path / step / 'state')
  with Checkpoints(tmp_path) as ckpts:
    with pytest.raises(ValueError, match=r'(?s)can be used, tried:\n  step 2: .*\n  step 1: '):
      ckpts.restore(abstract(make_state(0)))
    with pytest.raises(ValueError, match=r'tried:\n  step 1: leaf'):
      ckpts.restore(abstract(make_state(0)), step=1)
    assert ckpts.all_steps() == [1, 2]


def test_a_subtree_is_restored_from_any_path_that_means_a_checkpoint(tmp_path):
  save_all(tmp_path / 'checkpoints', {1: 0.1, 2: 0.9, 3: 0.3})
  for path, step, want in [
    (tmp_path, 'best', 2),
    (tmp_path, 'latest', 3),
    (tmp_path, 1, 1),
    (tmp_path / 'checkpoints', 'best', 2),
    (tmp_path / 'checkpoints' / '1', 'best', 1),
  ]:
    restored = restore_subtree(path, 'trainable', abstract(make_state(0))['trainable'], step)
    assert restored.step == want and restored.metadata == {'position': 3 * want}
    assert_same(restored.state, make_state(want)['trainable'])
  host = restore_subtree(tmp_path, 'opt/1').state
  assert_same(host, {'mu': np.full((3, 4), 2 / 8, np.float32)})
  assert restore_subtree(tmp_path, 'trainable').state['b'].dtype == jnp.bfloat16
  assert set(restore_subtree(tmp_path).state) == {'trainable', 'opt', 'host', 'flag'}


def cut_off(step):
  [path] = step.glob('state/d/*')
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(step):
  [path] = step.glob('state/d/*')
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def without_leaf(step):
  """The state of a run that lacked an array, beside the list of one that had it."""
  state = make_state(int(step.name))
  del state['trainable']['b']
  with Checkpoints(step.parent.parent / 'other') as other:
    other.save(int(step.name), state, {}, 0.0)
  shutil.rmtree(step / 'state')
  shutil.copytree(step.parent.parent / 'other' / step.name / 'state', step / 'state')


HARMS = {
  'file cut off': (cut_off, 'is damaged: leaf "trainable/'),
  'bit flipped': (flip, 'is damaged: leaf "trainable/'),
  'leaf missing': (without_leaf, 'is damaged: leaf "trainable/b"'),
  'state missing': (lambda step: shutil.rmtree(step / 'state'), 'is damaged: leaf "trainable/'),
  'body missing': (lambda step: shutil.rmtree(step / 'metadata'), 'is damaged: .*metadata'),
  'body of another': (
    lambda step: shutil.copytree(step.parent / '1', step, dirs_exist_ok=True),
    'is damaged: ',
  ),
  'emptied': (lambda step: [shutil.rmtree(path) for path in step.glob('*/')], 'is damaged: '),
  'gone': (shutil.rmtree, 'is missing: it was deleted or moved'),
}


@pytest.mark.parametrize('which, step', [('best', 2), ('latest', 3), (2, 2)])
@pytest.mark.parametrize('harm', HARMS)
def test_no_other_checkpoint_is_taken_for_a_damaged_one(tmp_path, harm, which, step):
  run = tmp_path / 'checkpoints'
  save_all(run, {1: 0.1, 2: 0.9, 3: 0.3})
  change, told = HARMS[harm]
  change(run / str(step))
  before = sorted(path for path in tmp_path.rglob('*'))
  if harm == 'gone' and which == 2:
    told = "no checkpoint '2', only"
  with pytest.raises(ValueError, match=told) as error:
    restore_subtree(tmp_path, 'trainable', abstract(make_state(0))['trainable'], which)
  assert sorted(path for path in tmp_path.rglob('*')) == before  # reading never writes
  if told.startswith('is '):
    others = {2: ('1 (reward 0.1), 3 (reward 0.3)', 3), 3: ('1 (reward 0.1), 2 (reward 0.9)', 2)}
    listed, last = others[step]
    assert f'of step {step}, is ' in str(error.value)
    assert f'Whole: step {listed}. Another one is used only where it is asked for' in str(
      error.value
    )
    assert f'--run={run / str(last)} or --config.init.path=' in str(error.value)
    assert ('--which=latest' in str(error.value)) == (which == 'best')
    assert restore_subtree(run / str(last), 'trainable').step == last
  if which == 'best':
    assert restore_subtree(tmp_path, 'trainable', step='latest').step == 3


def test_what_cannot_be_the_best_may_be_damaged(tmp_path):
  run = tmp_path / 'checkpoints'
  save_all(run, {1: 0.1, 2: 0.9, 3: 0.3})
  shutil.rmtree(run / '3' / 'metadata')
  assert restore_subtree(tmp_path, 'trainable').step == 2
  (run / stored.SAVED_FILE).unlink()  # as in runs of earlier versions
  with pytest.raises(
    ValueError, match='which checkpoint in .* is not known: step 3.*\n.*step 1 .*2'
  ):
    restore_subtree(tmp_path, 'trainable')
  (run / stored.SAVED_FILE).write_text('{"1":')
  assert restore_subtree(tmp_path, 'trainable', step=1).step == 1
  shutil.rmtree(run / '3')
  assert restore_subtree(tmp_path, 'trainable').step == 2


def test_nothing_whole_is_said(tmp_path):
  save_all(tmp_path, {1: 0.1, 2: 0.2})
  for step in '12':
    shutil.rmtree(tmp_path / step / 'state')
  with pytest.raises(
    ValueError, match=r'of step 2, is damaged: (?s:.*)No other one there is whole'
  ):
    restore_subtree(tmp_path)


def test_a_checkpoint_that_its_run_replaces_meanwhile_is_not_missed(tmp_path, monkeypatch):
  save_all(tmp_path, {1: 0.9, 2: 0.3})
  read, is_over = stored.read_body, []

  def read_late(path):
    if not is_over:  # its run saves a better one, and removes this one
      is_over.append(True)
      save_all(tmp_path, {3: 0.95}, keep_last=1)
      assert stored.committed_steps(tmp_path) == [3]
    return read(path)

  monkeypatch.setattr(stored, 'read_body', read_late)
  assert restore_subtree(tmp_path, 'trainable').step == 3


def test_wrong_paths_are_explained(tmp_path):
  with pytest.raises(ValueError, match='no checkpoint at .*nowhere: no such file'):
    restore_subtree(tmp_path / 'nowhere')
  with pytest.raises(ValueError, match='holds no checkpoint: give a run directory'):
    restore_subtree(tmp_path)
  save_all(tmp_path / 'checkpoints', {1: 0.1})
  with pytest.raises(ValueError, match=r"no checkpoint '7', only \[1\], best or latest"):
    restore_subtree(tmp_path, step=7)
  with pytest.raises(ValueError, match=r'no subtree "params", only .*trainable'):
    restore_subtree(tmp_path, 'params')
