"""The programs of a rollout: run on its slots, or made from shapes without a weight being there."""

import collections
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.core.sharding import batch_rows, batch_sharding, local_rows, put_batch
from score_jax.model.decode_params import decoding_params, unrolled
from score_jax.model.decoder import Decoder
from score_jax.rollout.generation import Draws, Inputs, copy_prompts, decode_block, extend
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.schedule import Piece, Turn
from score_jax.rollout.sizes import BlockShape, Sizes
from score_jax.rollout.slots import empty_slots

# Programs that have been run once, by what they are compiled for.
_COMPILED: set = set()


class Programs:
  """The slots of a rollout, and the programs that are run on them."""

  def __init__(
    self,
    decoder: Decoder,
    spec: RolloutSpec,
    sizes: Sizes,
    params: dict,
    keys: np.ndarray,
    temperature: float,
    mesh: jax.sharding.Mesh,
    on_round: Callable[[], None],
  ):
    """Prepares parameters and slots; compiles all programs where they are new.

    Args:
      decoder: the model.
      spec: ends of turn, top-k and top-p.
      sizes: static shapes.
      params: the policy's.
      keys: u32[N, ...] data of the rows' keys.
      temperature: 0 is greedy.
      mesh: the devices; empty for the default one.
      on_round: called after each program that is compiled.
    """
    self.decoder, self.spec, self.sizes, self.mesh = unrolled(decoder), spec, sizes, mesh
    self.params = decoding_params(decoder, params)
    self.keys, self.temperature = keys, jnp.float32(temperature)
    self.num_devices = 1 if mesh.empty else batch_rows(mesh) // jax.process_count()
    num_slots = sizes.slots * self.num_devices * jax.process_count()
    self.slots = empty_slots(self.decoder, num_slots, sizes.capacity)
    # A base model beside a policy may have other types, or no adapters.
    leaves, tree = jax.tree.flatten(self.params)
    known = (decoder, spec, sizes, mesh, tree, *((x.shape, x.dtype) for x in leaves))
    if known not in _COMPILED:
      self._run_all(on_round)
      _COMPILED.add(known)

  def extend(
    self, pieces: list[list[Piece]], before: Sequence[int], counts: collections.Counter
  ) -> None:
    """Gives slots their pieces, those of each device in order, `sizes.rows` at a time.

    Args:
      pieces: of each device of this process.
      before: of each call, the most tokens that any process has before a piece.
      counts: as for `rollout`.
    """
    rows = self.sizes.rows
    for call, longest in enumerate(before):
      mine = [one[call * rows : (call + 1) * rows] for one in pieces]
      self._extend(next(n for n in self.sizes.past() if longest <= n), mine)
      counts['extended'] += rows * self.num_devices * self.sizes.piece
      counts['given'] += sum(len(p.tokens) for one in mine for p in one)

  def _extend(self, length: int, pieces: Sequence[Sequence[Piece]]) -> None:
    shape = (self.num_devices, self.sizes.rows)
    x = {name: np.zeros(shape, np.int32) for name in ('slot', 'length', 'count')}
    tokens = np.zeros((*shape, self.sizes.piece), np.int32)
    is_prompt = np.zeros(shape, bool)
    for d, one in enumerate(pieces):
      for r, piece in enumerate(one):
        x['slot'][d, r], x['length'][d, r] = piece.slot, piece.length
        x['count'][d, r], is_prompt[d, r] = len(piece.tokens), piece.is_prompt
        tokens[d, r, : len(piece.tokens)] = piece.tokens
    inputs = self._put(Inputs(tokens=tokens, is_prompt=is_prompt, **x))
    self.slots = extend(self.decoder, length, self.params, self.slots, inputs)

  def copy_prompts(self, sources: list[list[int]]) -> None:
    """Gives slots the prompts of others; -1 leaves a slot alone."""
    source = np.asarray(sources, np.int32)
    own = np.broadcast_to(np.arange(self.sizes.slots), source.shape)
    both = self._put((np.where(source < 0, own, source).astype(np.int32), source >= 0))
    self.slots = copy_prompts(self.spec.prompt_tokens, self.slots, *both)

  def decode(
    self, shape: BlockShape, turns: list[list[Turn]], counts: collections.Counter
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples a block; i32[R, steps] tokens, f32[R, steps] nats, i32[R] tokens of each row."""
    *results, steps = self._decode(shape, turns)
    tokens, logp, count = local_rows(tuple(results))
    counts['steps'] += int(steps)
    counts['decoded'] += int(steps) * len(count)
    counts['sampled'] += int(count.sum())
    return tokens, logp, count

  def _decode(self, shape: BlockShape, turns: Sequence[Sequence[Turn]]):
    def column(name):
      return np.asarray([[getattr(t, name) for t in one] for one in turns], np.int32)

    names = ('slot', 'length', 'turn', 'sampled', 'left')
    x = self._put({name: column(name) for name in names} | {'key': self.keys[column('row')]})
    x['key'] = jax.random.wrap_key_data(x['key'], impl='threefry2x32')
    self.slots, *results = decode_block(
      self.decoder, self.spec, shape, self.params, self.slots, Draws(**x), self.temperature
    )
    return results

  def _put(self, tree):
    """Puts [devices, R, ...] onto the devices as [devices R, ...]."""
    tree = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)
    return jax.tree.map(jnp.asarray, tree) if self.mesh.empty else put_batch(self.mesh, tree)

  def _run_all(self, on_round: Callable[[], None]) -> None:
    """Runs every program once with nothing to do: so none is compiled later, in a long run."""
    for length in self.sizes.past():
      self._extend(length, [])
      on_round()
    self.copy_prompts([[-1] * self.sizes.slots] * self.num_devices)
    on_round()
    for shape in self.sizes.blocks():
      self._decode(shape, [[Turn(i, 0, 0, 0, 0, 0) for i in range(shape.rows)]] * self.num_devices)
      on_round()


def lower_programs(
  decoder: Decoder, spec: RolloutSpec, params: dict, sizes: Sizes, mesh: jax.sharding.Mesh
) -> dict[str, jax.stages.Lowered]:
  """Traces what bounds the programs that `rollout` would run, to be compiled.

  Args:
    decoder: the model.
    spec: budgets, instructions, ends of turn.
    params: shapes and shardings of the policy's parameters.
    sizes: static shapes.
    mesh: the devices, which is set.

  Returns:
    By name 'prefill' (given tokens behind the most that a slot may have) and those of
    `decode_shapes`. Their parameters are those of `decoding_params`.
  """
  lowered = decoding_params.lower(decoder, params)
  params, decoder = _outputs(lowered), unrolled(decoder)
  num_devices = batch_rows(mesh)
  slots = _outputs(empty_slots.lower(decoder, sizes.slots * num_devices, sizes.capacity))

  def rows(count, dtype, *shape):
    shape = (count * num_devices, *shape)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh, len(shape)))

  def numbers(count, *names):
    return {name: rows(count, jnp.int32) for name in names}

  draws = Draws(
    key=rows(sizes.slots, jax.eval_shape(lambda: jax.random.key(0, impl='threefry2x32')).dtype),
    **numbers(sizes.slots, 'slot', 'length', 'turn', 'sampled', 'left'),
  )
  inputs = Inputs(
    tokens=rows(sizes.rows, jnp.int32, sizes.piece),
    is_prompt=rows(sizes.rows, bool),
    **numbers(sizes.rows, 'slot', 'length', 'count'),
  )
  temperature = jax.ShapeDtypeStruct((), jnp.float32)
  lowered = {'prefill': extend.lower(decoder, sizes.past()[-1], params, slots, inputs)}
  for name, shape in decode_shapes(sizes).items():
    lowered[name] = decode_block.lower(decoder, spec, shape, params, slots, draws, temperature)
  return lowered


def decode_shapes(sizes: Sizes) -> dict[str, BlockShape]:
  """Blocks of all slots that all others follow from.

  Args:
    sizes: static shapes.

  Returns:
    'decode, short', the shortest, and 'decode', the longest that copies what it reads, which takes
    the most memory; where there are one or two, these.
  """
  every = [shape for shape in sizes.blocks() if shape.rows == sizes.slots]
  ends = [every[0], every[-2]] if len(every) > 2 else every
  return dict(zip(('decode, short', 'decode')[-len(ends) :], ends, strict=True))


def _outputs(lowered: jax.stages.Lowered):
  """Shapes and places of what a program returns."""
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    lowered.out_info,
    lowered.compile().output_shardings,
  )
