"""Runs that train adapters alone, and what goes on from them; adapters that are refused."""

import dataclasses
import json
import runpy

import jax
import numpy as np
import pytest
from small_models import compiled_decoder, tiny_decoder

from score_jax.core.config import default_config
from score_jax.core.paths import leaf_paths
from score_jax.evaluation import protocol
from score_jax.export import read_params
from score_jax.model import lora as lora_lib
from score_jax.model.lora import Lora
from score_jax.runs.restoring import restore_params
from score_jax.setup import run as setup_run
from score_jax.setup import trainable
from score_jax.setup.policy import Policy
from score_jax.setup.trainable import Trainable
from score_jax.training import train


def logits(params, config):
  tokens = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.int32)
  positions = np.broadcast_to(np.arange(4, dtype=np.int32), (2, 4))
  return compiled_decoder(config)(params, tokens, positions, np.ones((2, 4), bool))[1]


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'rank': -1}, 'lora.rank=-1 must be at least 1'),
    ({'alpha': 0.0}, 'lora.alpha=0.0 above 0'),
    ({'targets': ('q', 'head')}, r'targets=q, head must be some of q, k'),
    ({'targets': ('q', 'q')}, r'targets=q, q must be some of .*, each once'),
    ({'targets': ()}, r'targets= must be some of'),
  ],
)
def test_bad_adapters_are_refused(changes, message):
  config = default_config()
  config.lora.update({'rank': 2, **changes})
  with pytest.raises(ValueError, match=message):
    trainable.make_lora(config)


@pytest.fixture(
  scope='module', params=[pytest.param('float32', marks=pytest.mark.slow), 'bfloat16']
)
def config(tiny_run, request):
  config = runpy.run_path(str(tiny_run))['get_config']()
  config.seed = 3
  config.lora.update(rank=2, alpha=4.0, targets=('q', 'o', 'down'))
  config.model.param_dtype = request.param
  config.train.num_steps = 2
  return config


@pytest.fixture(scope='module')
def run(config, tmp_path_factory):
  """A finished run that trained adapters: its directory, its setup and its last state."""
  workdir = tmp_path_factory.mktemp('lora') / 'run'
  setup = setup_run.prepare(config)
  state = train.train(setup, workdir)
  return workdir, setup, state


def test_a_run_trains_adapters_alone(run, config):
  workdir, setup, state = run
  names = {path[-1] for path in leaf_paths(state.trainable)}
  assert names == {f'{name}_{x}' for name in ('q', 'o', 'down') for x in 'ab'}
  saved = restore_params(workdir, step='latest').params
  jax.tree.map(np.testing.assert_array_equal, saved, state.trainable)
  lora = Lora(2, 4.0, ('q', 'o', 'down'))
  assert setup.trainable.lora == lora
  start = setup.read_start()
  first = dict(lora_lib.iter_first_adapters(setup.base.decoder.config, lora, seed=3))
  np.testing.assert_array_equal(start['layers']['attn']['q_a'], first['layers', 'attn', 'q_a'])
  moved = jax.tree.map(lambda x, old: bool(np.any(x != old)), state.trainable, start)
  assert all(jax.tree.leaves(moved)), moved
  # No second copy of the base model, neither for the reference nor for the policy.
  trainer = train.Trainer(setup, workdir, start)
  held = [*jax.tree.leaves(trainer.frozen), *jax.tree.leaves(setup.trainable.policy_params(start))]
  trainer.close()
  base = {id(x) for x in jax.tree.leaves(setup.base.params)}
  others = [x for x in held if id(x) not in base]
  adapters = {x.shape for x in jax.tree.leaves(state.trainable)}
  assert {x.shape for x in others} <= adapters


def test_evaluation_export_and_full_training_go_on_from_adapters(run, config, tmp_path):
  workdir, setup, state = run
  joined = setup.trainable.policy_params(state.trainable)
  restored = trainable.restore_policy(str(workdir), setup.base, 'latest')
  jax.tree.map(np.testing.assert_array_equal, restored.params, joined)
  policy = Policy.of_run(config, setup.base, str(workdir), 'latest')
  found = protocol.evaluate_policy(policy, setup.task, 0.0, num_problems=4)
  assert len(found.records) == 4

  sizes = setup.base.decoder.config
  exported = read_params(config, sizes, str(workdir), 'latest')
  assert leaf_paths(exported) == leaf_paths(setup.base.params)
  np.testing.assert_allclose(logits(exported, sizes), logits(joined, sizes), atol=1e-6)
  assert np.abs(logits(exported, sizes) - logits(setup.base.params, sizes)).max() > 1e-4

  full = config.copy_and_resolve_references()
  full.init.update(path=str(workdir), which='latest')
  full.lora.rank = 0
  merged = Trainable(setup.base, None).read_start(full)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), merged, exported)


def test_adapters_beside_other_weights_are_refused(run, config, tiny_run):
  workdir, setup, _ = run
  params = {
    **setup.base.params,
    'final_norm': {'scale': setup.base.params['final_norm']['scale'] * 2},
  }
  other = dataclasses.replace(setup.base, params=params)
  following = config.copy_and_resolve_references()
  following.init.update(path=str(workdir), which='latest')
  full = following.copy_and_resolve_references()
  full.lora.rank = 0
  for read in (
    lambda: trainable.restore_policy(str(workdir), other, 'latest'),
    lambda: Trainable(other, setup.trainable.lora).read_start(following),
    lambda: Trainable(other, None).read_start(full),
  ):
    with pytest.raises(ValueError, match='trained adapters beside other weights .*param_dtype'):
      read()
  typed = dataclasses.replace(
    setup.base.decoder.config,
    param_dtype='bfloat16' if config.model.param_dtype == 'float32' else 'float32',
  )
  with pytest.raises(ValueError, match='trained adapters beside other weights'):
    read_params(config, typed, str(workdir), 'latest')


MESH_RUNS = """
import runpy, sys
from score_jax.setup import run as setup_run
from score_jax.training import train

def run(name, num_steps):
  config = runpy.run_path(sys.argv[1])['get_config']()
  config.lora.rank, config.mesh, config.stage.reference = 2, (2, 2, 1), 'init'
  config.model.param_dtype = 'bfloat16'
  config.train.update(checkpoint_every_steps=1, micro_batches=2, num_steps=num_steps)
  setup = setup_run.prepare(config)
  assert dict(setup.mesh.shape) == {'data': 2, 'fsdp': 2, 'tensor': 1}
  train.train(setup, f'{sys.argv[2]}/{name}')
  setup.task.close()

run('run', 1)
run('run', 2)
run('whole', 2)
"""


def test_a_run_on_a_mesh_goes_on_from_its_adapters(tmp_path, run_python, tiny_run):
  """Four devices, the reference is where the stage began; ended after a step and started again."""
  done = run_python('-c', MESH_RUNS, tiny_run, tmp_path, devices=4)
  assert done.returncode == 0, done.stderr
  states = [restore_params(tmp_path / name, step='latest').params for name in ('run', 'whole')]
  jax.tree.map(np.testing.assert_array_equal, *states)
  lora = Lora(2, 32.0, tuple(lora_lib.TARGETS))
  assert leaf_paths(states[0]) == leaf_paths(lora_lib.abstract_adapters(tiny_decoder(), lora)[0])


def test_the_next_stage_goes_on_with_the_same_adapters(run, config, tmp_path):
  workdir, setup, state = run
  following = config.copy_and_resolve_references()
  following.init.update(path=str(workdir), which='latest')
  start = setup.trainable.read_start(following)
  jax.tree.map(np.testing.assert_array_equal, start, state.trainable)
  other = following.copy_and_resolve_references()
  other.lora.rank = 3
  with pytest.raises(ValueError, match='trained adapters of rank 2 .* trains adapters of rank 3 '):
    Trainable(setup.base, trainable.make_lora(other)).read_start(other)
  (tmp_path / 'run').mkdir()
  stored = json.loads((workdir / 'config.json').read_text())
  stored['lora']['rank'] = 0
  (tmp_path / 'run' / 'config.json').write_text(json.dumps(stored))
  following.init.path = str(tmp_path / 'run')
  with pytest.raises(ValueError, match='trained all weights, and this run trains adapters of rank'):
    setup.trainable.read_start(following)
