"""Eight CPU devices in other layouts: the same tokens, the same updated parameters.

Run as a program with names of layouts, this file prints what each made, as JSON lines.
"""

import json
import sys

import numpy as np
import pytest

LAYOUTS = {
  'single': (1, 1, 1),
  'data': (8, 1, 1),
  'fsdp': (1, 8, 1),  # which does not divide the vocabulary of 12
  'data_tensor': (2, 1, 4),  # no more key/value heads than that
  'fsdp_tensor': (1, 4, 2),
  'all': (2, 2, 2),  # whose fsdp and tensor do divide it
}


def step_on(mesh, name):
  """Samples and learns from one batch on a mesh; returns what must not depend on the mesh."""
  import jax
  import jax.numpy as jnp
  import optax

  from score_jax.core.sharding import put_batch
  from score_jax.core.types import TrainState
  from score_jax.model.decoder import Decoder, DecoderConfig, abstract_params
  from score_jax.objective.stages import StageArrays, stage2
  from score_jax.rollout.keys import episode_keys
  from score_jax.rollout.layout import RolloutSpec
  from score_jax.rollout.multi_turn import rollout
  from score_jax.setup.base_model import param_shardings
  from score_jax.training.packing import pack_episodes
  from score_jax.training.train_step import StepOptions, forward, make_train_step

  config = DecoderConfig(
    vocab_size=12,
    num_layers=2,
    embed_dim=16,
    mlp_dim=32,
    num_heads=8,
    num_kv_heads=4,
    head_dim=4,
    tie_embeddings=False,
  )
  decoder = Decoder(config)
  spec = RolloutSpec(
    prompt_tokens=3, turn_tokens=(3, 4), followup_ids=((9, 10),), end_of_turn_ids=(1, 2)
  )
  shardings = param_shardings(config, mesh)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: rng.normal(0.0, 0.35, x.shape).astype(np.float32), abstract_params(config)[0]
  )
  prompt = np.repeat(rng.integers(3, 12, (4, 3), dtype=np.int32), 4, axis=0)
  is_prompt = np.ones(prompt.shape, bool)
  is_prompt[:8, 0] = False
  reward = rng.integers(0, 2, (16, 2)).astype(np.float32)
  with jax.sharding.set_mesh(mesh):
    placed = jax.device_put(params, shardings)
    keys = episode_keys(0, 0, np.repeat(np.arange(4), 4), np.tile(np.arange(4), 4))
    tokens, is_token = put_batch(mesh, (prompt, is_prompt))
    # Fewer slots than rows: each device has a queue of its own.
    episode = rollout(decoder, spec, placed, tokens, is_token, keys, 1.0, slots=8)
    optimizer = optax.adam(1e-2, eps=1e-3)
    train_step = make_train_step(
      policy=lambda trainable, frozen, e: forward(decoder, trainable, e),
      reference=lambda frozen, e: forward(decoder, frozen, e),
      optimizer=optimizer,
      options=StepOptions(samples_per_problem=4),
    )
    trainable = jax.device_put(params, shardings)
    state = TrainState(jnp.int32(0), trainable, optimizer.init(trainable))
    batch = put_batch(mesh, pack_episodes(episode, reward, 26, rows=8))
    state, metrics = train_step(state, placed, batch, StageArrays.of(stage2(10.0, 0.1)))
    # Where the layout splits a parameter, the update leaves it split.
    kept = jax.tree.map(
      lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), state.trainable, shardings
    )
  change = jax.tree.map(lambda x, old: np.asarray(x) - old, state.trainable, params)
  return {
    'layout': name,
    'rows': [e[mask].tolist() for e, mask in zip(episode.tokens, episode.is_token, strict=True)],
    'change': np.concatenate([x.ravel() for x in jax.tree.leaves(change)]).tolist(),
    'metrics': {k: float(v) for k, v in metrics.items()},
    'kept': jax.tree.leaves(kept),
    'q_shard': list((q := state.trainable['layers']['attn']['q']).sharding.shard_shape(q.shape)),
  }


D, V, NUM_CHUNKS = 32, 1024, 8


@pytest.mark.parametrize(
  ('mesh', 'message'),
  [
    ((1, 1, 3), r'mesh=\(1, 1, 3\): tensor=3 .* heads of 4, .*kv_heads of 2, .* a divisor of 2$'),
    ((1, 5, 1), r'mesh=\(1, 5, 1\): fsdp=5 .* embed of 32: take a divisor of 32$'),
  ],
)
def test_a_mesh_that_does_not_divide_the_model_is_refused(mesh, message):
  import jax

  from score_jax.core.sharding import MESH_AXES
  from score_jax.model.decoder_config import DecoderConfig
  from score_jax.setup.base_model import param_shardings

  sizes = DecoderConfig(64, 2, 32, 48, num_heads=4, num_kv_heads=2, head_dim=8)
  with pytest.raises(ValueError, match=message):
    param_shardings(sizes, jax.sharding.AbstractMesh(mesh, MESH_AXES))


def bytes_of_scoring(mesh):
  """What a device sends while tokens are scored and the output matrix gets its gradient."""
  import jax
  import jax.numpy as jnp

  from score_jax.core import sharding
  from score_jax.objective.logprobs import token_logp
  from score_jax.planning import costs
  from score_jax.planning.chips import CHIPS
  from score_jax.planning.hlo import parse

  def array(dtype, shape, axes):
    place = jax.sharding.NamedSharding(mesh, sharding.partition_spec(axes))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

  def loss(hidden, head, targets):
    return token_logp(hidden, head, targets, chunk=4)[0].sum()

  arguments = (
    array(jnp.float32, (8, 4 * NUM_CHUNKS, D), ('batch', None, None)),
    array(jnp.float32, (D, V), ('embed', 'vocab')),
    array(jnp.int32, (8, 4 * NUM_CHUNKS), ('batch', None)),
  )
  with jax.sharding.set_mesh(mesh):
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*arguments).compile()
  places = [(i,) for i in range(mesh.size)]
  return costs.count(parse(compiled.as_text()), CHIPS['v5p'], mesh.shape, places).sent


SLOW = ('data', 'data_tensor', 'fsdp_tensor')  # each a part of what 'all' does


def run_layouts(run_python, names):
  """What a process with eight devices printed: on scoring, and of each layout."""
  from makers import QUICK_TO_COMPILE  # late: run as a program, this file finds no makers

  names = ['single', *names]
  # They are compared with each other, so the compiler need not do its best.
  done = run_python(
    __file__, *names, devices=8, timeout_s=280, JAX_PLATFORMS='cpu', XLA_FLAGS=QUICK_TO_COMPILE
  )
  assert done.returncode == 0, done.stderr[-4000:]
  lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]
  return {line.get('layout', 'scoring'): line for line in lines}


@pytest.fixture(scope='module')
def results(run_python):
  return run_layouts(run_python, [name for name in LAYOUTS if name not in ('single', *SLOW)])


# [L, D, N, H] = [2, 16, 8, 4]: D over fsdp, N over tensor, before and after the update.
Q_SHARDS = {
  'single': [2, 16, 8, 4],
  'data': [2, 16, 8, 4],
  'fsdp': [2, 2, 8, 4],
  'data_tensor': [2, 16, 2, 4],
  'fsdp_tensor': [2, 4, 4, 4],
  'all': [2, 8, 4, 4],
}


def check(results):
  """Every layout made what a single device makes, and split the parameters."""
  want = results['single']
  assert len({tuple(row) for row in want['rows']}) > 8  # samples differ from each other
  assert np.abs(want['change']).max() > 1e-3
  for name, have in results.items():
    if name == 'scoring':
      continue
    assert have['rows'] == want['rows'], name
    np.testing.assert_allclose(have['change'], want['change'], atol=1e-5, err_msg=name)
    assert have['metrics'].keys() == want['metrics'].keys() > {'train/loss'}
    for key, value in want['metrics'].items():
      np.testing.assert_allclose(
        have['metrics'][key], value, rtol=1e-3, atol=1e-4, err_msg=f'{name}: {key}'
      )
    assert have['metrics']['train/logp_gap_max_nats'] < 1e-4
    assert have['q_shard'] == Q_SHARDS[name] and all(have['kept'])


def test_layout_changes_nothing(results):
  check(results)
  assert results.keys() == {'scoring', 'single', 'fsdp', 'all'}


@pytest.mark.slow
def test_no_other_layout_changes_anything(run_python):
  check(run_layouts(run_python, SLOW))


def test_scoring_does_not_send_the_output_matrix(results):
  """Not for each chunk: a few times in all. With rows kept where they are, it does."""
  sent = results['scoring']['scoring']
  matrix = 4 * D * V
  assert 0 < sent['rows gathered'] < 2 * matrix
  assert sent['rows kept'] > NUM_CHUNKS * matrix


def main():
  """Prints one JSON line of scoring's messages, and one for each layout that was named."""
  import jax

  from score_jax.core import sharding
  from score_jax.core.sharding import make_mesh

  mesh = make_mesh((1, 8, 1), jax.devices())
  sent = {'rows gathered': bytes_of_scoring(mesh)}
  good = dict(sharding.RULES)
  sharding.RULES |= {'scored_batch': good['batch'], 'scored_vocab': good['vocab']}
  jax.clear_caches()
  sent['rows kept'] = bytes_of_scoring(mesh)
  sharding.RULES |= good
  jax.clear_caches()
  print(json.dumps({'scoring': sent}), flush=True)

  for name in sys.argv[1:]:
    shape = LAYOUTS[name]
    devices = jax.devices()[: int(np.prod(shape))]
    print(json.dumps(step_on(make_mesh(shape, devices), name)), flush=True)


if __name__ == '__main__':
  main()
