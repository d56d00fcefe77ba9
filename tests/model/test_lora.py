"""Adapters: what they add, their gradients, and runs that train them alone."""

import dataclasses
import json
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.core.config import default_config
from score_jax.core.paths import leaf_paths, nest
from score_jax.evaluation import protocol
from score_jax.export import read_params
from score_jax.model import lora as lora_lib
from score_jax.model.attention import causal_mask
from score_jax.model.decoder import Decoder, init_params
from score_jax.model.decoder_config import DecoderConfig
from score_jax.model.lora import Lora
from score_jax.runs.restoring import restore_params
from score_jax.setup import run as setup_run
from score_jax.setup import trainable
from score_jax.setup.trainable import Trainable
from score_jax.training import train

SIZES = DecoderConfig(
  vocab_size=11,
  num_layers=3,
  embed_dim=8,
  mlp_dim=12,
  num_heads=4,
  num_kv_heads=2,
  head_dim=6,
  qkv_bias=True,
)
ALL = Lora(rank=2, alpha=6.0, targets=tuple(lora_lib.TARGETS))
# The einsum that multiplies A and B of each target, layers first.
PRODUCTS = {
  'q': 'ldr,lrnh->ldnh',
  'k': 'ldr,lrnh->ldnh',
  'v': 'ldr,lrnh->ldnh',
  'o': 'lnhr,lrd->lnhd',
  'gate': 'ldr,lrf->ldf',
  'up': 'ldr,lrf->ldf',
  'down': 'lfr,lrd->lfd',
}


def draw_adapters(lora, seed=0):
  """Adapters of which no part is 0."""
  rng = np.random.default_rng(seed)
  shapes, _ = lora_lib.abstract_adapters(SIZES, lora)
  return jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)


def logits(params, config=SIZES):
  tokens = jnp.array([[1, 2, 3, 4], [5, 6, 7, 8]])
  positions = jnp.broadcast_to(jnp.arange(4), (2, 4))
  mask = causal_mask(positions, positions, jnp.ones((2, 4), bool))
  hidden, head, _ = Decoder(config).apply({'params': params}, tokens, positions, mask)
  return hidden @ head


def weights_by_hand(params, adapters, lora):
  """W + A B * alpha / rank, in float64."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  for name in lora.targets:
    module = lora_lib.TARGETS[name][0]
    a, b = (np.float64(adapters['layers'][module][f'{name}_{x}']) for x in 'ab')
    params['layers'][module][name] += np.einsum(PRODUCTS[name], a, b) * lora.alpha / lora.rank
  return jax.tree.map(np.float32, params)


@pytest.mark.parametrize(
  ('targets', 'remat'),
  [
    *(((name,), 'none') for name in lora_lib.TARGETS),
    (ALL.targets, 'none'),
    (ALL.targets, 'block'),
  ],
)
def test_adapted_model_is_the_model_of_the_sums(targets, remat):
  lora = dataclasses.replace(ALL, targets=targets)
  config = dataclasses.replace(SIZES, remat=remat)
  params, adapters = init_params(SIZES, jax.random.key(0)), draw_adapters(lora)
  joined = lora_lib.join(params, adapters, lora)
  want = logits(weights_by_hand(params, adapters, lora))
  np.testing.assert_allclose(logits(joined, config), want, atol=1e-5)
  assert np.abs(want - logits(params)).max() > 1e-2  # or nothing was compared
  merged = lora_lib.merge(jax.tree.map(np.asarray, params), adapters, lora)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6),
    merged,
    weights_by_hand(params, adapters, lora),
  )
  assert all(isinstance(x, np.ndarray) and x.dtype == np.float32 for x in jax.tree.leaves(merged))


@pytest.mark.parametrize('fault', [{'alpha': 3.0}, {'rank': 1}])
def test_the_check_can_fail(fault):
  params, adapters = init_params(SIZES, jax.random.key(0)), draw_adapters(ALL)
  joined = lora_lib.join(params, adapters, dataclasses.replace(ALL, **fault))
  with pytest.raises(AssertionError):
    want = logits(weights_by_hand(params, adapters, ALL))
    np.testing.assert_allclose(logits(joined), want, atol=1e-5)


def test_gradients_are_those_of_the_weights_projected():
  """dA = scale dW B', dB = scale A' dW, with dW of the model of the sums; none for W itself."""
  params, adapters = init_params(SIZES, jax.random.key(0)), draw_adapters(ALL)

  def loss(params):
    return jnp.sum(jnp.sin(logits(params)))

  found = jax.grad(lambda a: loss(lora_lib.join(params, a, ALL)))(adapters)
  by_weight = jax.grad(loss)(weights_by_hand(params, adapters, ALL))
  for name, equation in PRODUCTS.items():
    module, (inputs, outputs) = lora_lib.TARGETS[name][0], equation.split('->')[0].split(',')
    a, b = (adapters['layers'][module][f'{name}_{x}'] for x in 'ab')
    dw, whole = by_weight['layers'][module][name], equation.split('->')[1]
    want = {
      f'{name}_a': ALL.scale * np.einsum(f'{whole},{outputs}->{inputs}', dw, b),
      f'{name}_b': ALL.scale * np.einsum(f'{inputs},{whole}->{outputs}', a, dw),
    }
    for key, value in want.items():
      np.testing.assert_allclose(found['layers'][module][key], value, atol=1e-4, err_msg=key)


def test_first_adapters_change_nothing_and_do_not_depend_on_the_mesh():
  params = init_params(SIZES, jax.random.key(0))
  first = dict(lora_lib.iter_first_adapters(SIZES, ALL, seed=3))
  again = dict(lora_lib.iter_first_adapters(SIZES, ALL, seed=3))
  jax.tree.map(np.testing.assert_array_equal, first, again)
  joined = lora_lib.join(params, nest(first.items()), ALL)
  np.testing.assert_array_equal(logits(joined), logits(params))
  assert joined['layers']['attn']['q'] is params['layers']['attn']['q']  # no copy
  for path, x in first.items():
    if path[-1].endswith('_a'):
      limit = np.prod(x.shape[1:-1]) ** -0.5
      assert 0.8 * limit < np.abs(x).max() <= limit, path
      assert len(np.unique(x)) > 0.9 * x.size


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'rank': -1}, 'lora.rank=-1 must be at least 1'),
    ({'alpha': 0.0}, 'lora.alpha=0.0 above 0'),
    ({'targets': ('q', 'head')}, r"targets=\('q', 'head'\) must be some of \('q', 'k'"),
    ({'targets': ('q', 'q')}, r"targets=\('q', 'q'\) must be some of .*, each once"),
    ({'targets': ()}, r'targets=\(\) must be some of'),
  ],
)
def test_bad_adapters_are_refused(changes, message):
  config = default_config()
  config.lora.update({'rank': 2, **changes})
  with pytest.raises(ValueError, match=message):
    trainable.make_lora(config)


@pytest.fixture(scope='module', params=['float32', 'bfloat16'])
def config(tiny_run, request):
  config = runpy.run_path(str(tiny_run))['get_config']()
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
  start = setup.read_start()
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
  found = protocol.evaluate_params(
    config, setup.base, restored.params, setup.task, 4, 0.0, setup.mesh
  )
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


def test_the_order_of_targets_means_nothing():
  assert Lora(2, 4.0, ('o', 'q')) == Lora(2, 4.0, ('q', 'o'))


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


def test_a_run_on_a_mesh_goes_on_from_its_adapters(tmp_path, run_python, tiny_run):
  """Four devices, the reference is where the stage began; stopped after a step and resumed."""
  settings = {
    'lora.rank': 2,
    'mesh': '(2,2,1)',
    'stage.reference': 'init',
    'model.param_dtype': 'bfloat16',
    'train.checkpoint_every_steps': 1,
    'train.micro_batches': 2,
  }
  arguments = ['-m', 'score_jax.main', f'--config={tiny_run}', f'--workdir={tmp_path}/run']
  arguments += [f'--config.{key}={value}' for key, value in settings.items()]
  for steps in (1, 2):
    done = run_python(*arguments, f'--config.train.num_steps={steps}', devices=4)
    assert done.returncode == 0, done.stderr
  whole = [a.replace('/run', '/whole') for a in arguments]
  assert run_python(*whole, '--config.train.num_steps=2', devices=4).returncode == 0
  states = [restore_params(tmp_path / name, step='latest').params for name in ('run', 'whole')]
  jax.tree.map(np.testing.assert_array_equal, *states)
  assert leaf_paths(states[0]) == leaf_paths(
    lora_lib.abstract_adapters(SIZES, Lora(2, 32.0, tuple(lora_lib.TARGETS)))[0]
  )


def test_the_next_stage_goes_on_with_the_same_adapters(run, config, tmp_path):
  workdir, setup, state = run
  following = config.copy_and_resolve_references()
  following.init.update(path=str(workdir), which='latest')
  start = setup.trainable.read_start(following)
  jax.tree.map(np.testing.assert_array_equal, start, state.trainable)
  other = following.copy_and_resolve_references()
  other.lora.rank = 3
  with pytest.raises(ValueError, match=r'trained Lora\(rank=2.*this run trains Lora\(rank=3'):
    Trainable(setup.base, trainable.make_lora(other)).read_start(other)
  (tmp_path / 'run').mkdir()
  stored = json.loads((workdir / 'config.json').read_text())
  stored['lora']['rank'] = 0
  (tmp_path / 'run' / 'config.json').write_text(json.dumps(stored))
  following.init.path = str(tmp_path / 'run')
  with pytest.raises(ValueError, match='trained all weights, and this run trains Lora'):
    setup.trainable.read_start(following)
