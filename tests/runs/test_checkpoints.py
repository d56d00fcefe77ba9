"""Checkpoints: what is kept, what comes back, and what is refused."""

import contextlib
import resource
import shutil
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saved_states import READS_FAIL, abstract, assert_same, make_state, save_all

from score_jax.core.storage import StorageError
from score_jax.runs import checkpoints, stored
from score_jax.runs.checkpoints import Checkpoints
from score_jax.runs.restoring import restore_subtree

pytestmark = READS_FAIL


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


def test_a_damaged_step_is_saved_again(tmp_path):
  save_all(tmp_path, {1: 0.1, 2: 0.2})
  (tmp_path / '2' / 'state' / 'manifest.ocdbt').unlink()
  with Checkpoints(tmp_path) as ckpts:
    assert ckpts.restore(abstract(make_state(0))).step == 1
    assert ckpts.save(2, make_state(2), {}, 0.2)
    ckpts.wait()
    assert ckpts.all_steps() == [1, 2] and ckpts.best_step() == 2
    assert_same(ckpts.restore(abstract(make_state(0))).state, make_state(2))


def test_a_resume_goes_on_without_a_lost_checkpoint_and_says_so(tmp_path, caplog):
  save_all(tmp_path, {1: 0.1, 2: 0.9, 3: 0.3, 4: 0.4})
  assert stored.read_noted(tmp_path) == {1: 0.1, 2: 0.9, 3: 0.3, 4: 0.4}  # 1 is not kept
  for step in (2, 4):
    shutil.rmtree(tmp_path / str(step))
  with Checkpoints(tmp_path, keep_last=1) as ckpts:
    assert ckpts.restore(abstract(make_state(0))).step == 3
    # Step 4 is done again, perhaps without a save; step 2 stays the best that was.
    assert stored.read_noted(tmp_path) == {1: 0.1, 2: 0.9, 3: 0.3}
    for lost in (2, 4):
      assert f'of step {lost} in {tmp_path} is missing. The run goes on after step 3' in caplog.text
    ckpts.save(5, make_state(5), {}, 0.5)
    assert ckpts.best_step() == 3
  with pytest.raises(ValueError, match='the best .* of step 2, is missing'):
    restore_subtree(tmp_path)
  with Checkpoints(tmp_path, keep_last=1) as ckpts:
    ckpts.save(6, make_state(6), {}, 0.95)
  assert restore_subtree(tmp_path).step == 6
  shutil.rmtree(tmp_path / '6')
  caplog.clear()
  with Checkpoints(tmp_path) as ckpts:
    assert ckpts.restore(abstract(make_state(0))) is None
  assert 'of step 6' in caplog.text and stored.read_noted(tmp_path) == {}


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


@contextlib.contextmanager
def files_of_at_most(num_bytes):
  """As on a full disk, of which a test has none: larger files cannot be written."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_does_not_fit_is_said_in_a_line_and_the_rest_is_kept(tmp_path, capfd):
  """And once there is room, it goes on."""
  state = {'w': np.random.default_rng(0).normal(size=200_000)}
  save_all(tmp_path, {4: 0.5})
  with files_of_at_most(100_000):
    ckpts = Checkpoints(tmp_path)
    ckpts.save(5, state, {}, 0.1)
    message = (
      rf'^{tmp_path}/5 cannot be written: a file may not .*; 1,600,000 bytes were to be .*there$'
    )
    with pytest.raises(StorageError, match=message):
      ckpts.wait()
    ckpts.close()
    assert ckpts.all_steps() == [4]
  assert capfd.readouterr().err == ''
  with Checkpoints(tmp_path) as ckpts:
    assert ckpts.restore(abstract(make_state(0))).step == 4
    ckpts.save(5, state, {}, 0.1)
    ckpts.wait()
    np.testing.assert_array_equal(ckpts.restore(state).state['w'], state['w'])
