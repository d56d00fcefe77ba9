"""What a run takes of each device's memory, told before it starts.

What is kept (weights, optimiser, reference) and the cache are counted from shapes and shardings.
What an update works with is estimated from what jax says the backward pass keeps;
`--dry_run` compiles the programs and puts the compiler's own figures beside it.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from score_jax.core import sharding
from score_jax.model.decode_params import decoding_axes, decoding_type
from score_jax.model.decoder import Decoder, abstract_params
from score_jax.model.decoder_config import DecoderConfig
from score_jax.model.lora import abstract_adapters, policy_params
from score_jax.planning.shapes import (
  abstract_episode,
  abstract_policy,
  abstract_update_inputs,
  compile_rollout,
  compile_update,
  num_rows,
)
from score_jax.setup.run import PlannedRun
from score_jax.training.train_step import forward

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
    decoding: the policy's weights as decoding reads them: in the compute type, gathered.
    cache: keys and values while sampling, the rows' own twice when they grow, and logits.
    activations: what the largest part of an update works with, estimated.
  """

  trained: int
  optimizer: int
  base: int
  moved: int
  gradients: int
  decoding: int
  cache: int
  activations: int

  @property
  def kept(self) -> int:
    """What is there all the time."""
    return self.trained + self.optimizer + self.base

  @property
  def sampling(self) -> int:
    """The peak of a rollout."""
    return self.kept + self.decoding + self.cache

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
    >>> print(memory_table(Memory(GIB, 2 * GIB, *[GIB] * 5, 2 * GIB), (2 * GIB, 5 * GIB)))
    | on each device, GiB | sampling | update | compiler: sampling | update |
    |---|---|---|---|---|
    | trained parameters | 1.00 | 1.00 | | |
    | optimiser | 2.00 | 2.00 | | |
    | base model | 1.00 | 2.00 | | |
    | weights for decoding | 1.00 | | | |
    | keys and values | 1.00 | | | |
    | gradients | | 1.00 | | |
    | activations (estimate) | | 2.00 | | |
    | all | 6.00 | 8.00 | 6.00 | 9.00 |
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
    row('weights for decoding', m.decoding, None, None, None),
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


def kept_bytes(run: PlannedRun) -> dict[str, int]:
  """Counts what a run keeps on each device all the time.

  Args:
    run: of shapes (`score_jax.planning.shapes`), or prepared (`score_jax.setup.run`).

  Returns:
    Bytes of 'trained', 'optimizer' and 'base', as in `Memory`.
  """
  state, frozen = abstract_update_inputs(run)
  return {
    'trained': device_bytes(state.trainable),
    'optimizer': device_bytes(state.opt_state),
    'base': _distinct_bytes(run.base.params, frozen),
  }


def plan_memory(run: PlannedRun) -> Memory:
  """Counts what a run will take; nothing is computed or allocated.

  Args:
    run: from `score_jax.setup.run.prepare`.

  Returns:
    Bytes on each device.
  """
  config, sizes = run.config, run.base.decoder.config
  kept = kept_bytes(run)
  parts = config.train.micro_batches
  rows = num_rows(run) // sharding.batch_rows(run.mesh)
  tensor = run.mesh.shape['tensor']
  slots = run.spec.first_slot(run.spec.num_turns)
  shared, own = cache_bytes(run)
  return Memory(
    **kept,
    moved=kept['trained'] * jnp.dtype(sizes.param_dtype).itemsize // 4
    if config.model.offload_reference
    else 0,
    gradients=kept['trained'] * (1 if parts == 1 else 2),
    decoding=decoding_bytes(run),
    # Twice the rows' own, which are copied as they grow.
    cache=shared + 2 * own + rows * _LOGITS_AT_ONCE * 4 * sizes.vocab_size // tensor,
    activations=_activations(run, -(-rows // parts), slots, tensor),
  )


def cache_bytes(run: PlannedRun) -> tuple[int, int]:
  """Counts the keys and values of whole episodes on each device.

  Args:
    run: as for `kept_bytes`.

  Returns:
    Bytes of prompts that several rows share, and of the rows' own slots.
  """
  c, spec = run.base.decoder.config, run.spec
  rows = num_rows(run) // sharding.batch_rows(run.mesh)
  samples = run.config.rollout.samples_per_problem
  heads = max(1, c.num_kv_heads // run.mesh.shape['tensor'])
  kv = 2 * c.num_layers * heads * c.head_dim * jnp.dtype(c.dtype).itemsize
  prompt, slots = spec.prompt_tokens, spec.first_slot(spec.num_turns)
  if samples == 1 or rows % samples:  # a problem's rows lie on several devices
    return 0, rows * slots * kv
  return rows // samples * prompt * kv, rows * (slots - prompt) * kv


def decoding_bytes(run: PlannedRun) -> int:
  """Counts the parameters as decoding wants them, on each device; argument as for `kept_bytes`."""
  c, total = run.base.decoder.config, 0
  for keys, x in jax.tree_util.tree_flatten_with_path(abstract_policy(run))[0]:
    place = NamedSharding(run.mesh, sharding.partition_spec(decoding_axes(c, keys, x)))
    total += math.prod(place.shard_shape(x.shape)) * decoding_type(c, keys, x).itemsize
  return total


def _distinct_bytes(*trees) -> int:
  """As `device_bytes`, of each array once, however often it is in the trees."""
  return device_bytes(list({id(x): x for x in jax.tree.leaves(trees)}.values()))


def _activations(run: PlannedRun, rows: int, slots: int, tensor: int) -> int:
  """Estimates what one part of an update works with on one device.

  That is what the backward pass keeps of all layers, and the larger of a chunk of logits and, where
  layers are recomputed, what is made anew of one: the first is gone when the second comes.
  """
  c = run.base.decoder.config
  local = dataclasses.replace(
    c,
    num_heads=c.num_heads // tensor,
    num_kv_heads=max(1, c.num_kv_heads // tensor),
    mlp_dim=c.mlp_dim // tensor,
    vocab_size=-(-c.vocab_size // tensor),
  )
  kept, layer = _kept_bytes(local, run.trainable.lora, rows, slots), 0
  if c.remat != 'none':
    pattern = (True,) if c.window else ()
    one = dataclasses.replace(local, num_layers=1, window_pattern=pattern)
    layer = _kept_bytes(dataclasses.replace(one, remat='none'), run.trainable.lora, rows, slots)
  chunk = min(run.config.train.chunk_tokens, slots)
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


def compiled_bytes(run: PlannedRun) -> tuple[int, int]:
  """Compiles the rollout and the update and asks the compiler what they take.

  Args:
    run: from `score_jax.setup.run.prepare`.

  Returns:
    Bytes on each device beside what is kept: at the rollout's peak, and at the update's.
  """
  sampling = max(bytes_beside(program, 0) for program in compile_rollout(run))
  kept = device_bytes(abstract_update_inputs(run))
  return sampling, bytes_beside(compile_update(run), kept)


def bytes_beside(program: jax.stages.Compiled, kept: int) -> int:
  """Bytes of a program's arguments, results and temporaries, less those arguments that are kept.

  Args:
    program: compiled.
    kept: bytes of those arguments on each device.

  Returns:
    Bytes on each device.
  """
  m = program.memory_analysis()
  arguments = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
  return arguments + m.temp_size_in_bytes - kept
