"""What a run takes of each device's memory, told before it starts.

What is kept (weights, optimiser, reference) and the cache are counted from shapes and shardings.
What an update works with is estimated from what jax says the backward pass keeps;
`--dry_run` compiles the programs and puts the compiler's own figures beside it.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from ml_collections import FrozenConfigDict

from score_jax.core import sharding
from score_jax.core.types import Batch, Episode
from score_jax.model.decoder import Decoder, abstract_params
from score_jax.model.decoder_config import DecoderConfig
from score_jax.model.lora import abstract_adapters, put_beside
from score_jax.objective.stages import StageArrays
from score_jax.optimizer import make_optimizer
from score_jax.procedures.rollout import compile_segments
from score_jax.procedures.train_step import forward
from score_jax.setup_run import Setup, make_step_options
from score_jax.train import compiled_step
from score_jax.trainable import abstract_base, abstract_state, abstract_trainable, policy_params

GIB = 2**30
# Arrays of [rows, chunk, V] that exist at once while a chunk is scored and differentiated: both
# models' log-probabilities, the probabilities, and their gradient.
_LOGITS_AT_ONCE = 4


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes that a run takes on each device.

  Attributes:
    trained: f32 weights or adapters.
    optimizer: its state.
    base: the base model beside them, as reference or under adapters; 0 where it is offloaded.
    moved: the offloaded reference, which an update brings to the device.
    gradients: of one update, twice where micro-batches add up.
    cache: keys and values while sampling, once more for the part that a step reads, and logits.
    activations: what the largest part of an update works with, estimated.
  """

  trained: int
  optimizer: int
  base: int
  moved: int
  gradients: int
  cache: int
  activations: int

  @property
  def kept(self) -> int:
    """What is there all the time."""
    return self.trained + self.optimizer + self.base

  @property
  def sampling(self) -> int:
    """The peak of a rollout."""
    return self.kept + self.cache

  @property
  def update(self) -> int:
    """The peak of an update."""
    return self.kept + self.moved + self.gradients + self.activations


def memory_table(memory: Memory, compiled: tuple[int, int] | None = None) -> str:
  """Lays out what a run takes on each device.

  Args:
    memory: from `plan_memory`.
    compiled: from `compiled_bytes`, for a column of the compiler's figures.

  Returns:
    A Markdown table in GiB.

  Example:
    >>> print(memory_table(Memory(GIB, 2 * GIB, GIB, 0, GIB, GIB, 3 * GIB), (GIB, 5 * GIB)))
    | on each device, GiB | sampling | update | compiler: sampling | update |
    |---|---|---|---|---|
    | trained parameters | 1.00 | 1.00 | | |
    | optimiser | 2.00 | 2.00 | | |
    | base model | 1.00 | 1.00 | | |
    | keys and values | 1.00 | | | |
    | gradients | | 1.00 | | |
    | activations (estimate) | | 3.00 | | |
    | all | 5.00 | 8.00 | 5.00 | 9.00 |
  """

  def row(name, *sizes):
    cells = ['' if size is None else f'{size / GIB:.2f} ' for size in sizes]
    return f'| {name} | ' + '| '.join(cells[: 2 if compiled is None else 4]) + '|'

  m, (sampling, update) = memory, compiled or (0, 0)
  head = '| on each device, GiB | sampling | update |'
  lines = [
    head if compiled is None else f'{head} compiler: sampling | update |',
    '|---|---|---|' + ('' if compiled is None else '---|---|'),
    row('trained parameters', m.trained, m.trained, None, None),
    row('optimiser', m.optimizer, m.optimizer, None, None),
    row('base model', m.base, m.base + m.moved, None, None),
    row('keys and values', m.cache, None, None, None),
    row('gradients', None, m.gradients, None, None),
    row('activations (estimate)', None, m.activations, None, None),
    row('all', m.sampling, m.update, m.kept + sampling, m.kept + update),
  ]
  return '\n'.join(lines)


def device_bytes(tree) -> int:
  """Bytes of a tree on one device, in its own memory.

  Args:
    tree: arrays or jax.ShapeDtypeStruct, with shardings.

  Returns:
    The bytes of one shard of each; nothing for what lies in the host's memory.
  """
  on_device = [x for x in jax.tree.leaves(tree) if x.sharding.memory_kind != sharding.HOST]
  return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in on_device)


def plan_memory(setup: Setup) -> Memory:
  """Counts what a run will take; nothing is computed or allocated.

  Args:
    setup: from `score_jax.setup_run.prepare`.

  Returns:
    Bytes on each device.
  """
  config, sizes = setup.config, setup.base.decoder.config
  trainable = abstract_trainable(setup.base, setup.lora)
  optimizer = make_optimizer(config.optimizer)
  state = abstract_state(optimizer, trainable, setup.mesh, setup.num_adapted)
  trained = device_bytes(state.trainable)
  parts = config.train.micro_batches
  rows = _num_rows(setup) // sharding.batch_rows(setup.mesh)
  tensor = setup.mesh.shape['tensor']
  slots = setup.spec.first_slot(setup.spec.num_turns)
  heads = max(1, sizes.num_kv_heads // tensor)
  kv = 2 * sizes.num_layers * heads * sizes.head_dim * jnp.dtype(sizes.dtype).itemsize
  return Memory(
    trained=trained,
    optimizer=device_bytes(state.opt_state),
    base=_distinct_bytes(setup.base.params, _frozen(setup, trainable)),
    moved=device_bytes(abstract_base(setup.base)) if config.model.offload_reference else 0,
    gradients=trained * (1 if parts == 1 else 2),
    cache=rows * (2 * slots * kv + _LOGITS_AT_ONCE * 4 * sizes.vocab_size // tensor),
    activations=_activations(setup, -(-rows // parts), slots, tensor),
  )


def _abstract_policy(setup: Setup, trainable: dict) -> dict:
  """Shapes and places of the decoder's parameters while a run trains."""
  return trainable if setup.lora is None else put_beside(setup.base.params, trainable)


def _frozen(setup: Setup, trainable: dict) -> dict:
  """What an update is given beside its state, in shapes where it is not the base model's own."""
  is_base = setup.lora is None and not setup.config.init.path
  return setup.frozen(setup.base.params if is_base else _abstract_policy(setup, trainable))


def _distinct_bytes(*trees) -> int:
  """As `device_bytes`, of each array once, however often it is in the trees."""
  return device_bytes(list({id(x): x for x in jax.tree.leaves(trees)}.values()))


def _num_rows(setup: Setup) -> int:
  return setup.config.rollout.problems_per_step * setup.config.rollout.samples_per_problem


def _activations(setup: Setup, rows: int, slots: int, tensor: int) -> int:
  """Estimates what one part of an update works with on one device.

  That is what the backward pass keeps of all layers, and the larger of a chunk of logits and, where
  layers are recomputed, what is made anew of one: the first is gone when the second comes.
  """
  c = setup.base.decoder.config
  local = dataclasses.replace(
    c,
    num_heads=c.num_heads // tensor,
    num_kv_heads=max(1, c.num_kv_heads // tensor),
    mlp_dim=c.mlp_dim // tensor,
    vocab_size=-(-c.vocab_size // tensor),
  )
  kept, layer = _kept_bytes(local, setup.lora, rows, slots), 0
  if c.remat != 'none':
    pattern = (True,) if c.window else ()
    one = dataclasses.replace(local, num_layers=1, window_pattern=pattern)
    layer = _kept_bytes(dataclasses.replace(one, remat='none'), setup.lora, rows, slots)
  chunk = min(setup.config.train.chunk_tokens, slots)
  return kept + max(layer, _LOGITS_AT_ONCE * rows * chunk * local.vocab_size * 4)


def _kept_bytes(config: DecoderConfig, lora, rows: int, slots: int) -> int:
  """Bytes that the forward pass keeps for the backward pass, the parameters aside."""
  params = abstract_params(config)[0]
  trainable = params if lora is None else abstract_adapters(config, lora)[0]

  def residuals(trainable, params, episode):
    def hidden(trainable):
      return forward(Decoder(config), policy_params(params, trainable, lora), episode)[0]

    return jax.vjp(hidden, trainable)[1]

  shapes = jax.eval_shape(residuals, trainable, params, abstract_episode(rows, slots, 1))
  kept = [(x.shape, x.dtype) for x in jax.tree.leaves(shapes)]
  for x in jax.tree.leaves((params, trainable)):
    if (x.shape, x.dtype) in kept:
      kept.remove((x.shape, x.dtype))
  return sum(math.prod(shape) * dtype.itemsize for shape, dtype in kept)


def abstract_episode(rows: int, slots: int, turns: int) -> Episode:
  """Shapes of an episode."""

  def array(dtype, *shape):
    return jax.ShapeDtypeStruct(shape, dtype)

  return Episode(
    tokens=array(jnp.int32, rows, slots),
    positions=array(jnp.int32, rows, slots),
    is_token=array(bool, rows, slots),
    turn=array(jnp.int32, rows, slots),
    is_sampled=array(bool, rows, slots),
    sampled_logp=array(jnp.float32, rows, slots),
    is_truncated=array(bool, rows, turns),
  )


def compiled_bytes(setup: Setup) -> tuple[int, int]:
  """Compiles the rollout and the update and asks the compiler what they take.

  Args:
    setup: from `score_jax.setup_run.prepare`.

  Returns:
    Bytes on each device beside what is kept: at the rollout's peak, and at the update's.
  """
  config, mesh, decoder = setup.config, setup.mesh, setup.base.decoder
  rows, K = _num_rows(setup), setup.spec.num_turns
  slots = setup.spec.first_slot(K)

  def placed(tree):
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=sharding.batch_sharding(mesh, len(x.shape))
      ),
      tree,
    )

  trainable = abstract_trainable(setup.base, setup.lora)
  optimizer, step = compiled_step(
    decoder, setup.lora, make_step_options(config), FrozenConfigDict(config.optimizer)
  )
  state = abstract_state(optimizer, trainable, mesh, setup.num_adapted)
  params = _abstract_policy(setup, trainable)
  frozen = _frozen(setup, trainable)
  prompts = placed(abstract_episode(rows, setup.spec.prompt_tokens, K))
  keys = placed(jax.ShapeDtypeStruct((rows,), jax.random.key(0, impl='threefry2x32').dtype))
  batch = Batch(
    episode=abstract_episode(rows, slots, K),
    reward=jax.ShapeDtypeStruct((rows, K), jnp.float32),
  )
  with jax.sharding.set_mesh(mesh):
    segments = compile_segments(decoder, setup.spec, params, prompts.tokens, prompts.is_token, keys)
    update = step.lower(state, frozen, placed(batch), StageArrays.of(setup.stage), slots).compile()
  sampling = max(_beside(program, device_bytes(params)) for program in segments)
  return sampling, _beside(update, device_bytes((state, frozen)))


def _beside(program: jax.stages.Compiled, kept: int) -> int:
  """Bytes of a program's arguments, results and temporaries, less those arguments that are kept."""
  m = program.memory_analysis()
  arguments = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
  return arguments + m.temp_size_in_bytes - kept
