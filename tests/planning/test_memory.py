"""What a run is said to take of each device: counted by hand, by the compiler, and in place."""

import dataclasses
import math

import jax
import pytest

from score_jax.core import sharding
from score_jax.core.config import default_config
from score_jax.model import presets
from score_jax.model.decoder_config import DecoderConfig
from score_jax.objective import stages
from score_jax.planning import memory
from score_jax.planning.shapes import compile_update, planned_run
from score_jax.training import packing

SIZES = DecoderConfig(
  vocab_size=1000,
  num_layers=2,
  embed_dim=96,
  mlp_dim=256,
  num_heads=6,
  num_kv_heads=2,
  head_dim=16,
)
WEIGHTS = 1000 * 96 + 96 + 2 * (2 * 96 + 2 * 96 * (6 + 2) * 16 + 3 * 96 * 256)


def run_of_shapes(sizes=SIZES, instruction_tokens=15, **changes):
  """A run of 4 x 4 episodes, of which nothing is read and no weight is there."""
  config = default_config()
  config.model.preset = 'tiny'
  config.stage.update(dataclasses.asdict(stages.stage2(10.0, 0.01)))
  config.rollout.update(problems_per_step=4, samples_per_problem=4, prompt_tokens=32)
  config.rollout.turn_tokens = (32, 32)
  config.train.chunk_tokens = 32
  for part, values in changes.items():
    config[part].update(values)
  mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(presets.PRESETS, 'tiny', sizes)
    return planned_run(config, mesh, instruction_tokens, backend='cpu')


CASES = {
  'recomputed': {'model': {'remat': 'block'}},
  'adapters': {'lora': {'rank': 4}},
  'offloaded': {'model': {'offload_reference': True}},
}


@pytest.mark.parametrize('case', CASES)
def test_what_is_kept_is_counted(case):
  counted = memory.count_memory(run_of_shapes(**CASES[case]))
  assert counted.base == (0 if case == 'offloaded' else 4 * WEIGHTS)
  trained = 4 * WEIGHTS
  if case == 'adapters':  # rank 4: to and from each input and output of the layers' weights
    attention = 2 * (96 + 96) + 2 * (96 + 32)
    trained = 4 * 4 * 2 * (attention + 3 * (96 + 256))
  assert counted.trained == trained
  assert counted.optimizer == pytest.approx(2 * trained, abs=100)  # two moments and a count
  assert counted.optimizer > 2 * trained
  assert counted.decoding == 4 * WEIGHTS + (trained if case == 'adapters' else 0)
  assert counted.kept == counted.trained + counted.optimizer + counted.base


@pytest.mark.parametrize('slots', [0, 5])
def test_keys_and_values_are_those_of_all_slots(slots):
  """By hand: 2 layers, keys and values of 2 heads of 16 in float32; 32 + 32 + 16 + 32 tokens.

  Behind them is room for a block or a piece of 32.
  """
  token = 2 * 2 * 2 * 16 * 4
  counted = memory.count_memory(run_of_shapes(rollout={'slots': slots}))
  assert counted.cache == (slots or 16) * (112 + 32) * token


def test_types_halve_what_they_should():
  plain = memory.count_memory(run_of_shapes())
  half = memory.count_memory(
    run_of_shapes(model={'param_dtype': 'bfloat16'}, optimizer={'mu_dtype': 'bfloat16'})
  )
  assert half.trained == plain.trained  # what is trained stays f32
  assert half.base == plain.base / 2
  assert plain.optimizer - half.optimizer == plain.trained / 2
  adapters = memory.count_memory(run_of_shapes(lora={'rank': 2}, model={'param_dtype': 'bfloat16'}))
  assert adapters.kept < 0.6 * plain.base


@pytest.mark.parametrize(
  'case',
  [
    'recomputed',
    *(pytest.param(case, marks=pytest.mark.slow) for case in ('adapters', 'offloaded')),
  ],
)
def test_the_compiler_takes_no_less_than_is_counted(case):
  """Of a rollout weights for decoding and cache, of an update the gradients."""
  run = run_of_shapes(dataclasses.replace(SIZES, num_layers=1), **CASES[case])
  counted = memory.count_memory(run)
  sampling, update = memory.compiled_bytes(run)
  assert counted.decoding + counted.cache <= sampling < 3 * (counted.decoding + counted.cache)
  # An offloaded reference comes to the device.
  assert update > counted.trained + (counted.trained if case == 'offloaded' else 0)
  table = memory.memory_table(counted, (sampling, update))
  assert f'| update, by the compiler | {(counted.kept + update) / 2**30:.2f} |' in table


PLACED = """
import runpy, sys, jax
from score_jax.planning import memory
from score_jax.setup import run as setup_run
from score_jax.training.loop import fresh_state
config = runpy.run_path(sys.argv[1])['get_config']()
config.mesh = (2, 2, 1)
setup = setup_run.prepare(config)
with jax.sharding.set_mesh(setup.mesh):
  state = fresh_state(setup, setup.read_start())
counted = memory.count_memory(setup)

def there(tree):
  device = jax.devices()[0]
  shards = [s for x in jax.tree.leaves(tree) for s in x.addressable_shards if s.device == device]
  return sum(s.data.nbytes for s in shards)

assert counted.trained == there(state.trainable), (counted.trained, there(state.trainable))
assert counted.optimizer == there(state.opt_state)
assert counted.base == there(setup.base.params)
assert counted.trained < sum(x.nbytes for x in jax.tree.leaves(state.trainable)) * 0.6
print('counted')
"""


def test_a_mesh_holds_what_is_counted(tiny_run, run_python):
  done = run_python('-c', PLACED, tiny_run, devices=4)
  assert 'counted' in done.stdout, done.stderr


VOCABULARIES = (49_152, 256_000)
# Of [B, chunk, V] in float32: both models' log-probabilities, probabilities, and their gradient.
ARRAYS_AT_ONCE = 4


def working_bytes(vocab_size: int) -> int:
  """Temporary bytes of the compiled update at SmolLM2-135M's shape, less the gradients."""
  run = run_of_shapes(
    dataclasses.replace(presets.PRESETS['smollm2_135m'], vocab_size=vocab_size),
    instruction_tokens=127,
    model={'remat': 'block'},
    rollout={'problems_per_step': 8, 'prompt_tokens': 128, 'turn_tokens': (128, 128)},
    train={'chunk_tokens': 16},
  )
  assert run.spec.first_slot(2) == 512
  gradients = 4 * sum(math.prod(x.shape) for x in jax.tree.leaves(run.base.params))
  return compile_update(run).memory_analysis().temp_size_in_bytes - gradients


@pytest.mark.slow
def test_an_update_grows_with_the_vocabulary_by_a_chunk_of_logits_alone(monkeypatch):
  # All rows at once: else a whole row's logits would be no more than a chunk of these.
  monkeypatch.setattr(packing, '_MIN_SLOTS_CPU', 2**30)
  small, large = map(working_bytes, VOCABULARIES)
  a_chunk = 4 * 32 * 16 * (VOCABULARIES[1] - VOCABULARIES[0])
  assert 0 < large - small <= ARRAYS_AT_ONCE * a_chunk
