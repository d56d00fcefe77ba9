"""The programs of a rollout, made from shapes, are those that it runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import random_params, tiny_decoder

from score_jax.core import sharding
from score_jax.model.decoder import Decoder
from score_jax.rollout import multi_turn, programs
from score_jax.rollout import sizes as sizing
from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.programs import decode_shapes, lower_programs

CONFIG = tiny_decoder(num_layers=1)
SPEC = RolloutSpec(5, (7, 9), ((3, 4),), end_of_turn_ids=(9,))


def test_programs_are_those_of_a_rollout(monkeypatch):
  """A rollout hands its programs what these are lowered for: shapes and types."""
  run = {'extend': set(), 'decode_block': set()}

  def told(x):
    return getattr(x, 'shape', ()), jnp.dtype(x.dtype).name if x.dtype != KEY else 'key'

  def noting(name):
    program = getattr(programs, name)

    def call(decoder, *arguments):
      static = [x for x in arguments if isinstance(x, (int, sizing.BlockShape))]
      rest = arguments[arguments.index(static[0]) + 1 :]
      run[name].add((*static, *map(told, jax.tree.leaves(rest[:-1] if name != 'extend' else rest))))
      return program(decoder, *arguments)

    monkeypatch.setattr(programs, name, call)

  keys = episode_keys(0, 0, np.arange(4), np.zeros(4, np.int32))
  KEY = keys.dtype
  for name in run:
    noting(name)
  mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
  params = jax.tree.map(jnp.asarray, random_params(CONFIG))
  prompt = np.ones((4, 5), np.int32)
  sizes = sizing.Sizes.of(SPEC, 4)
  with jax.sharding.set_mesh(mesh):
    multi_turn.rollout(Decoder(CONFIG), SPEC, params, prompt, prompt > 0, keys, 1.0)
    monkeypatch.undo()
    lowered = lower_programs(Decoder(CONFIG), SPEC, params, sizes, mesh)

  def shapes(name):
    return tuple(told(x) for x in jax.tree.leaves(lowered[name].in_avals[0]))

  assert list(lowered) == ['prefill', 'decode']
  assert (sizes.past()[-1], *shapes('prefill')) in run['extend']
  for name, shape in decode_shapes(sizes).items():
    assert (shape, *shapes(name)[:-1]) in run['decode_block']


def test_the_block_that_reads_all_of_the_cache_copies_none_of_it(monkeypatch):
  monkeypatch.setattr(sizing, '_LEAST_LENGTH', 4)
  sizes, mesh = sizing.Sizes.of(SPEC, 4), sharding.make_mesh((1, 1, 1), jax.devices()[:1])
  params = jax.tree.map(jnp.asarray, random_params(CONFIG))
  kept = f'tensor<4x2x{CONFIG.head_dim}x{sizes.capacity}xf32>'
  *shorter, whole = [shape for shape in sizes.blocks() if shape.rows == 4]
  for shape, copies in ((shorter[0], True), (whole, False)):
    monkeypatch.setattr(programs, 'decode_shapes', lambda sizes, shape=shape: {'block': shape})
    with jax.sharding.set_mesh(mesh):
      lowered = lower_programs(Decoder(CONFIG), SPEC, params, sizes, mesh)['block']
    lines = lowered.as_text().splitlines()
    assert any(kept in line for line in lines)
    slices = [line for line in lines if 'stablehlo.slice' in line and f'({kept})' in line]
    assert bool(slices) == copies


@pytest.mark.parametrize(
  ('lengths', 'read'), [((9,), [16]), ((9, 18), [9, 24]), ((9, 18, 27), [9, 18])]
)
def test_the_longest_block_that_copies_what_it_reads_takes_the_most_memory(lengths, read):
  sizes = sizing.Sizes(slots=32, steps=4, piece=2, rows=2, lengths=lengths)
  shapes = decode_shapes(sizes)
  assert [x.length for x in shapes.values()] == read
  assert list(shapes)[-1] == 'decode' and {x.rows for x in shapes.values()} == {32}
