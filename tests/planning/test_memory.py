"""What a run is said to take of each device, against the compiler and against arrays in place."""

import dataclasses
import functools
import math
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.core import sharding
from score_jax.core.config import default_config
from score_jax.model.decoder import Decoder, abstract_params
from score_jax.model.decoder_config import DecoderConfig
from score_jax.objective import stages
from score_jax.planning import memory
from score_jax.rollout.layout import RolloutSpec
from score_jax.setup import run as setup_run
from score_jax.setup.base_model import BaseWeights, param_shardings
from score_jax.setup.trainable import Trainable, make_lora
from score_jax.training import train

SIZES = DecoderConfig(
  vocab_size=1000,
  num_layers=4,
  embed_dim=96,
  mlp_dim=256,
  num_heads=6,
  num_kv_heads=2,
  head_dim=16,
)
SPEC = RolloutSpec(32, (32, 32), ((5,) * 15,), (2,))


def abstract_setup(decoder=SIZES, **changes):
  """A setup of shapes alone: nothing is read, and no weight is there."""
  config = default_config()
  config.stage.update(dataclasses.asdict(stages.stage2(10.0, 0.01)))
  config.rollout.problems_per_step = config.rollout.samples_per_problem = 4
  config.train.chunk_tokens = 32
  for part, values in changes.items():
    config[part].update(values)
  m = config.model
  sizes = dataclasses.replace(decoder, dtype=m.dtype, param_dtype=m.param_dtype, remat=m.remat)
  mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
  kind = 'pinned_host' if m.offload_reference else 'device'
  params = jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place.with_memory_kind(kind)),
    abstract_params(sizes)[0],
    param_shardings(sizes, mesh),
  )
  trainable = Trainable(BaseWeights(Decoder(sizes), params, mesh), make_lora(config))
  return setup_run.PlannedRun(config, trainable, setup_run.make_stage(config), SPEC)


CASES = {
  'plain': {},
  'recomputed': {'model': {'remat': 'block'}},
  'in parts': {'model': {'remat': 'dots'}, 'train': {'micro_batches': 4}},
  'adapters': {'lora': {'rank': 4}},
  'offloaded': {'model': {'offload_reference': True}},
}


@functools.cache
def compiled(case):
  """The compiler's figures, which take seconds to make."""
  return memory.compiled_bytes(abstract_setup(**CASES[case]))


@pytest.mark.parametrize(
  'case',
  [
    'recomputed',
    'offloaded',
    *(pytest.param(case, marks=pytest.mark.slow) for case in ('plain', 'in parts', 'adapters')),
  ],
)
def test_the_plan_is_near_what_the_compiler_says(case):
  setup = abstract_setup(**CASES[case])
  plan = memory.plan_memory(setup)
  sampling, update = compiled(case)
  assert plan.decoding + plan.cache == pytest.approx(sampling, rel=0.4)
  assert plan.moved + plan.gradients + plan.activations == pytest.approx(update, rel=0.4)
  num_params = sum(math.prod(x.shape) for x in jax.tree.leaves(setup.base.params))
  assert (plan.moved, plan.base)[:: -1 if case == 'offloaded' else 1] == (0, 4 * num_params)
  if case != 'adapters':
    assert plan.trained == 4 * num_params
    assert 8 * num_params <= plan.optimizer < 8 * num_params + 100  # two moments and a count


def test_a_prompt_that_is_not_shared_is_a_part_of_each_row():
  """By hand: 4 layers, keys and values of 2 heads of 16 in float32; 32 + 32 + 16 + 32 slots."""
  slot = 4 * 2 * 2 * 16 * 4
  assert memory.cache_bytes(abstract_setup()) == (4 * 32 * slot, 16 * 80 * slot)
  alone = abstract_setup(rollout={'samples_per_problem': 1, 'problems_per_step': 16})
  assert memory.cache_bytes(alone) == (0, 16 * 112 * slot)


def test_any_pattern_of_windows_can_be_planned():
  windowed = dataclasses.replace(SIZES, window=8, window_pattern=(False, True))
  plan = memory.plan_memory(abstract_setup(windowed, model={'remat': 'block'}))
  plain = memory.plan_memory(abstract_setup(model={'remat': 'block'}))
  assert plan.activations == pytest.approx(plain.activations, rel=0.1)


@pytest.mark.parametrize('fault', ['logits', 'layers'])
def test_the_check_can_fail(monkeypatch, fault):
  if fault == 'logits':
    monkeypatch.setattr(memory, '_LOGITS_AT_ONCE', 40)
  else:
    monkeypatch.setattr(memory, '_kept_bytes', lambda *args: 0)
  with pytest.raises(AssertionError):
    test_the_plan_is_near_what_the_compiler_says('recomputed')


def test_types_halve_what_they_should():
  plain = memory.plan_memory(abstract_setup())
  half = memory.plan_memory(
    abstract_setup(model={'param_dtype': 'bfloat16'}, optimizer={'mu_dtype': 'bfloat16'})
  )
  assert half.trained == plain.trained  # what is trained stays f32
  assert half.base == plain.base / 2
  assert plain.optimizer - half.optimizer == plain.trained / 2
  adapters = memory.plan_memory(abstract_setup(lora={'rank': 2}, model={'param_dtype': 'bfloat16'}))
  assert adapters.kept < 0.6 * plain.base


PLACED = """
import runpy, sys, jax
from etils import epath
from score_jax.planning import memory
from score_jax.setup import run as setup_run
from score_jax.training import train
config = runpy.run_path(sys.argv[1])['get_config']()
config.mesh = (2, 2, 1)
setup = setup_run.prepare(config)
start = setup.read_start()
trainer = train.Trainer(setup, epath.Path(sys.argv[2]), start)
with jax.sharding.set_mesh(setup.mesh):
  state = trainer.first_state(start)
trainer.close()
plan = memory.plan_memory(setup)

def there(tree):
  device = jax.devices()[0]
  shards = [s for x in jax.tree.leaves(tree) for s in x.addressable_shards if s.device == device]
  return sum(s.data.nbytes for s in shards)

assert plan.trained == there(state.trainable), (plan.trained, there(state.trainable))
assert plan.optimizer == there(state.opt_state)
assert plan.base == there(setup.base.params)
assert plan.trained < sum(x.nbytes for x in jax.tree.leaves(state.trainable)) * 0.6
print('counted')
"""


def test_a_mesh_holds_what_is_counted(tiny_run, tmp_path, run_python):
  done = run_python('-c', PLACED, tiny_run, tmp_path / 'run', devices=4)
  assert 'counted' in done.stdout, done.stderr


def tiny_config(tiny_run, **changes):
  config = runpy.run_path(str(tiny_run))['get_config']()
  config.train.num_steps = 2
  for part, values in changes.items():
    config[part].update(values)
  return config


def test_what_is_on_the_devices_is_not_copied():
  x = jnp.ones(3)
  assert sharding.on_devices({'x': x})['x'] is x
  host = jax.device_put(x, x.sharding.with_memory_kind('pinned_host'))
  assert sharding.on_devices(host).sharding.memory_kind == 'device'


def test_an_offloaded_reference_changes_nothing_but_its_place(tiny_run, tmp_path):
  states = []
  for is_offloaded in (False, True):
    config = tiny_config(
      tiny_run, model={'offload_reference': is_offloaded}, train={'micro_batches': 2}
    )
    setup = setup_run.prepare(config)
    kinds = {x.sharding.memory_kind for x in jax.tree.leaves(setup.base.params)}
    assert kinds == {'pinned_host' if is_offloaded else 'device'}
    assert (memory.plan_memory(setup).base == 0) == is_offloaded
    states.append(train.train(setup, tmp_path / str(is_offloaded)))
  assert {x.sharding.memory_kind for x in jax.tree.leaves(states[1])} == {'device'}
  jax.tree.map(np.testing.assert_array_equal, *states)


def test_types_of_the_base_model_and_of_the_first_moment(tiny_run, tmp_path):
  config = tiny_config(
    tiny_run, model={'param_dtype': 'bfloat16'}, optimizer={'mu_dtype': 'bfloat16'}
  )
  setup = setup_run.prepare(config)
  assert {x.dtype for x in jax.tree.leaves(setup.base.params)} == {jnp.dtype('bfloat16')}
  state = train.train(setup, tmp_path / 'run')
  assert {x.dtype for x in jax.tree.leaves(state.trainable)} == {jnp.dtype('float32')}
  (adam,) = [part for part in state.opt_state if hasattr(part, 'mu')]
  assert {x.dtype for x in jax.tree.leaves(adam.mu)} == {jnp.dtype('bfloat16')}
  assert {x.dtype for x in jax.tree.leaves(adam.nu)} == {jnp.dtype('float32')}


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'lora': {'rank': 1}}, r'off the devices, but config.lora.rank=1 adapts it'),
    ({'rollout': {'base_turn1_share': 0.5}}, 'base_turn1_share=0.5 samples from it'),
    ({'stage': {'reference': 'init'}}, "stage.reference='init' is another model"),
  ],
)
def test_a_base_model_with_another_use_is_not_offloaded(tiny_run, changes, message):
  config = tiny_config(tiny_run, model={'offload_reference': True}, **changes)
  with pytest.raises(ValueError, match=message):
    setup_run.prepare(config)
