"""What a run takes of each device's memory, told before it starts.

What is kept (weights, optimiser, reference) and what a rollout needs at least (weights for
decoding, keys and values) are counted from shapes and shardings. All that a rollout and an update
take is what the compiler says of their programs.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from score_jax.core import sharding
from score_jax.model.decode_params import decoding_axes, decoding_type
from score_jax.planning.chips import GIB
from score_jax.planning.shapes import (
  abstract_policy,
  abstract_update_inputs,
  compile_update,
  lower_rollout,
  rollout_sizes,
)
from score_jax.setup.run import PlannedRun


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes on each device that can be counted before a program is compiled.

  Attributes:
    trained: f32 weights or adapters.
    optimizer: its state.
    base: the base model beside them, as reference or under adapters; 0 where it is offloaded.
    decoding: the policy's weights as decoding reads them: in the compute type, gathered.
    cache: keys and values of the episodes that are decoded at once.
  """

  trained: int
  optimizer: int
  base: int
  decoding: int
  cache: int

  @property
  def kept(self) -> int:
    """What is there all the time."""
    return self.trained + self.optimizer + self.base

  @property
  def sampling(self) -> int:
    """What a rollout takes at least."""
    return self.kept + self.decoding + self.cache


def memory_table(memory: Memory, compiled: tuple[int, int] | None = None) -> str:
  """Lays out what a run takes on each device.

  Args:
    memory: from `count_memory`.
    compiled: from `compiled_bytes`, for two more rows.

  Returns:
    A Markdown table in GiB.

  Example:
    >>> print(memory_table(Memory(GIB, 2 * GIB, GIB, GIB, GIB), (3 * GIB, 5 * GIB)))
    | on each device | GiB |
    |---|---|
    | trained parameters | 1.00 |
    | optimiser | 2.00 |
    | base model | 1.00 |
    | kept all the time | 4.00 |
    | weights for decoding | 1.00 |
    | keys and values | 1.00 |
    | sampling, at least | 6.00 |
    | sampling, by the compiler | 7.00 |
    | update, by the compiler | 9.00 |
  """
  m = memory
  rows = {
    'trained parameters': m.trained,
    'optimiser': m.optimizer,
    'base model': m.base,
    'kept all the time': m.kept,
    'weights for decoding': m.decoding,
    'keys and values': m.cache,
    'sampling, at least': m.sampling,
  }
  if compiled is not None:
    rows['sampling, by the compiler'], rows['update, by the compiler'] = (
      m.kept + size for size in compiled
    )
  lines = [f'| {name} | {size / GIB:.2f} |' for name, size in rows.items()]
  return '\n'.join(['| on each device | GiB |', '|---|---|', *lines])


def device_bytes(tree) -> int:
  """Bytes of a tree on one device, in its own memory.

  Args:
    tree: arrays or jax.ShapeDtypeStruct, with shardings.

  Returns:
    The bytes of one shard of each; nothing for what lies in the host's memory.
  """
  on_device = [x for x in jax.tree.leaves(tree) if x.sharding.memory_kind != sharding.HOST]
  return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in on_device)


def count_memory(run: PlannedRun) -> Memory:
  """Counts what a run will take; nothing is computed or allocated.

  Args:
    run: of shapes (`score_jax.planning.shapes`), or prepared (`score_jax.setup.run`).

  Returns:
    Bytes on each device.
  """
  state, frozen = abstract_update_inputs(run)
  # Each array once, however often it is in the trees.
  base = {id(x): x for x in jax.tree.leaves((run.base.params, frozen))}
  return Memory(
    trained=device_bytes(state.trainable),
    optimizer=device_bytes(state.opt_state),
    base=device_bytes(list(base.values())),
    decoding=_decoding_bytes(run),
    cache=_cache_bytes(run),
  )


def _cache_bytes(run: PlannedRun) -> int:
  """Keys and values of all slots; each has its own prompt."""
  c, sizes = run.base.decoder.config, rollout_sizes(run)
  heads = max(1, c.num_kv_heads // run.mesh.shape['tensor'])
  kv = 2 * c.num_layers * heads * c.head_dim * jnp.dtype(c.dtype).itemsize
  return sizes.slots * sizes.capacity * kv


def _decoding_bytes(run: PlannedRun) -> int:
  """The parameters as decoding wants them."""
  c, total = run.base.decoder.config, 0
  for keys, x in jax.tree_util.tree_flatten_with_path(abstract_policy(run))[0]:
    place = NamedSharding(run.mesh, sharding.partition_spec(decoding_axes(c, keys, x)))
    total += math.prod(place.shard_shape(x.shape)) * decoding_type(c, keys, x).itemsize
  return total


def compiled_bytes(run: PlannedRun) -> tuple[int, int]:
  """Compiles the rollout and the update and asks the compiler what they take.

  Args:
    run: as for `count_memory`.

  Returns:
    Bytes on each device beside what is kept: at the rollout's peak, and at the update's.
  """
  sampling = max(bytes_beside(x.compile(), 0) for x in lower_rollout(run).values())
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
