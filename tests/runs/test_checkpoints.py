"""Checkpoints: what is kept, what is restored, and damage that is noticed."""

import gc
import logging
import shutil
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.runs import checkpoints, stored
from score_jax.runs.checkpoints import Checkpoints

# A read that fails inside Orbax leaves coroutines behind that are collected later.
pytestmark = [
  pytest.mark.filterwarnings('ignore:coroutine .* was never awaited:RuntimeWarning'),
  pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning'),
]


@pytest.fixture(autouse=True)
def collect_what_failed_reads_leave():
  yield
  gc.collect()  # here, where its warnings are expected, and not in some later test


def make_state(step):
  """A state with what a train state has: nested dicts, a tuple, counters, flags, bf16."""
  return {
    'trainable': {
      'w': jax.random.normal(jax.random.key(step), (20, 30)),
      'b': (jnp.arange(7) + step).astype(jnp.bfloat16),
    },
    'opt': (jnp.int32(step), {'mu': jnp.full((3, 4), step / 8), 'empty': ()}, None),
    'host': np.arange(5, dtype=np.int64) * step,
    'flag': jnp.array([True, False]),
  }


def abstract(tree):
  return jax.tree.map(
    lambda x: x if isinstance(x, np.ndarray) else jax.ShapeDtypeStruct(x.shape, x.dtype), tree
  )


def assert_same(got, want):
  assert jax.tree.structure(got) == jax.tree.structure(want)
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    assert isinstance(x, np.ndarray) == isinstance(y, np.ndarray) and x.dtype == y.dtype
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def save_all(directory, rewards, **kwargs):
  with Checkpoints(directory, **kwargs) as ckpts:
    for step, reward in rewards.items():
      assert ckpts.save(step, make_state(step), {'position': step * 3}, reward)


@pytest.mark.parametrize('async_save', [True, False])
def test_a_state_comes_back_bit_for_bit(tmp_path, async_save):
  save_all(tmp_path, {4: 0.5}, async_save=async_save)
  with Checkpoints(tmp_path) as ckpts:
    restored = ckpts.restore(abstract(make_state(0)))
  assert restored.step == 4 and restored.metadata == {'position': 12}
  assert_same(restored.state, make_state(4))


def test_no_checkpoint_is_none_and_a_missing_step_is_an_error(tmp_path):
  with Checkpoints(tmp_path) as ckpts:
    assert ckpts.restore(abstract(make_state(0))) is None
    assert ckpts.all_steps() == [] and ckpts.best_step() is None
    assert ckpts.oldest_resumable_step() is None
    with pytest.raises(ValueError, match=r'no checkpoint of step 3, only of \[\]'):
      ckpts.restore(abstract(make_state(0)), step=3)


def test_the_last_and_the_best_are_kept(tmp_path):
  rewards = {1: 0.1, 2: 0.9, 3: float('nan'), 4: 0.3, 5: 0.9, 6: 0.2}
  kept = {1: [1], 2: [1, 2], 3: [2, 3], 4: [2, 3, 4], 5: [4, 5], 6: [5, 6]}
  for step, reward in rewards.items():  # a new process each time: rewards come from disk
    save_all(tmp_path, {step: reward}, keep_last=2)
    with Checkpoints(tmp_path, keep_last=2) as ckpts:
      assert ckpts.all_steps() == kept[step]
      assert ckpts.best_step() == max(
        (s for s in kept[step] if s != 3), key=lambda s: (rewards[s], s)
      )
      assert ckpts.oldest_resumable_step() == kept[step][0]


def test_a_step_is_saved_once_and_buffers_may_be_reused_at_once(tmp_path):
  bump = jax.jit(lambda x: x + 1, donate_argnums=0)
  big, host = jnp.arange(2_000_000.0), np.arange(3)
  with Checkpoints(tmp_path) as ckpts:
    assert ckpts.save(1, {'big': big, 'host': host}, {}, 0.0)
    host += 7
    for _ in range(5):
      big = bump(big)
    assert not ckpts.save(1, {'big': big, 'host': host}, {}, 0.0)
    restored = ckpts.restore({'big': big, 'host': host})
  assert_same(restored.state, {'big': jnp.arange(2_000_000.0), 'host': np.arange(3)})


@pytest.mark.parametrize(
  'state, message',
  [
    ({'a': {'n': 3}}, 'leaf "a/n" is a int, not an array'),
    ({'a': jax.random.key(0)}, r'leaf "a" has dtype key<fry>'),
    ({'a': jnp.zeros(2, jnp.complex64)}, 'leaf "a" has dtype complex64'),
    (jnp.zeros(2), 'put a bare array into a dict'),
  ],
)
def test_states_that_cannot_be_saved_are_refused(tmp_path, state, message):
  with Checkpoints(tmp_path) as ckpts, pytest.raises(ValueError, match=message):
    ckpts.save(1, state, {}, 0.0)


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


def test_a_damaged_step_is_saved_again(tmp_path):
  save_all(tmp_path, {1: 0.1, 2: 0.2})
  (tmp_path / '2' / 'state' / 'manifest.ocdbt').unlink()
  with Checkpoints(tmp_path) as ckpts:
    assert ckpts.restore(abstract(make_state(0))).step == 1
    assert ckpts.save(2, make_state(2), {}, 0.2)
    ckpts.wait()
    assert ckpts.all_steps() == [1, 2] and ckpts.best_step() == 2
    assert_same(ckpts.restore(abstract(make_state(0))).state, make_state(2))


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
  restore = checkpoints.restore_subtree
  for path, step, want in [
    (tmp_path, 'best', 2),
    (tmp_path, 'latest', 3),
    (tmp_path, 1, 1),
    (tmp_path / 'checkpoints', 'best', 2),
    (tmp_path / 'checkpoints' / '1', 'best', 1),
  ]:
    restored = restore(path, 'trainable', abstract(make_state(0))['trainable'], step)
    assert restored.step == want and restored.metadata == {'position': 3 * want}
    assert_same(restored.state, make_state(want)['trainable'])
  host = restore(tmp_path, 'opt/1').state
  assert_same(host, {'mu': np.full((3, 4), 2 / 8, np.float32)})
  assert restore(tmp_path, 'trainable').state['b'].dtype == jnp.bfloat16
  assert set(restore(tmp_path).state) == {'trainable', 'opt', 'host', 'flag'}
  (tmp_path / 'checkpoints' / '2' / 'state' / 'manifest.ocdbt').write_bytes(b'')
  assert restore(tmp_path, 'trainable').step == 3
  assert (tmp_path / 'checkpoints' / '2').exists()  # reading never writes


def test_wrong_paths_are_explained(tmp_path):
  with pytest.raises(ValueError, match='no checkpoint at .*nowhere: no such file'):
    checkpoints.restore_subtree(tmp_path / 'nowhere')
  with pytest.raises(ValueError, match='holds no checkpoint: give a run directory'):
    checkpoints.restore_subtree(tmp_path)
  save_all(tmp_path / 'checkpoints', {1: 0.1})
  with pytest.raises(ValueError, match=r"no checkpoint '7', only \[1\], best or latest"):
    checkpoints.restore_subtree(tmp_path, step=7)
  with pytest.raises(ValueError, match=r'no subtree "params", only .*trainable'):
    checkpoints.restore_subtree(tmp_path, 'params')


def test_orbax_is_quiet_but_its_warnings_pass(tmp_path, caplog):
  caplog.set_level(logging.DEBUG, logger='absl')
  save_all(tmp_path, {1: 0.0})
  assert not [r for r in caplog.records if '/orbax/' in r.pathname]
  stored.quiet_orbax()
  assert len(logging.getLogger('absl').filters) == 1


OTHER_SHARDING = """
    import sys
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
    from score_jax.runs.checkpoints import Checkpoints

    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ('a', 'b'))
    x = np.arange(64, dtype=np.float32).reshape(8, 8)
    with Checkpoints(sys.argv[1]) as ckpts:
      for step, spec in enumerate([P('a', 'b'), P(None, 'a'), P()]):
        sharded = {'x': jax.device_put(x, NamedSharding(mesh, spec))}
        assert ckpts.save(step, sharded, {}, 0.0)
        for target in [P(), P('b'), P(('a', 'b'), None), P('b', 'a')]:
          sharding = NamedSharding(mesh, target)
          got = ckpts.restore({'x': jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)})
          assert got.step == step and got.state['x'].sharding == sharding
          assert (np.asarray(got.state['x']) == x).all()
    one = NamedSharding(Mesh(np.array(jax.devices()[3:]), ('a',)), P())
    with Checkpoints(sys.argv[1]) as ckpts:
      got = ckpts.restore({'x': jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one)})
      assert got.state['x'].devices() == {jax.devices()[3]}
"""


def test_a_state_is_restored_to_another_sharding(tmp_path, run_python):
  script = textwrap.dedent(OTHER_SHARDING)
  done = run_python('-c', script, tmp_path, devices=4, JAX_PLATFORMS='cpu')
  assert done.returncode == 0, done.stderr


def test_a_relative_directory_will_do(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with Checkpoints('run/checkpoints') as writer:
    writer.save(1, {'w': np.arange(3.0)}, metadata={}, reward=0.0)
    writer.wait()
  restored = checkpoints.restore_subtree('run')
  assert restored.state['w'].tolist() == [0, 1, 2]
