"""The cache: rows run in pieces, each of which reads what those before it wrote, are full rows."""

import functools

import jax
import numpy as np
import pytest
from small_models import GEMMA_CHOICES, compiled_decoder, random_params, tiny_decoder

from score_jax.core.logits import project
from score_jax.model.attention import causal_mask
from score_jax.model.cache import join
from score_jax.model.decoder import Decoder

# The windowed one looks at positions and not at slots.
CONFIGS = {
  'plain': tiny_decoder(num_layers=2),
  'windowed': tiny_decoder(**GEMMA_CHOICES),
}
# Two rows of twelve slots with holes in them, so that slots and positions differ.
TOKENS = np.random.default_rng(0).integers(0, 11, (2, 12), dtype=np.int32)
IS_TOKEN = np.array(
  [[1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1]], bool
)
POSITIONS = np.maximum(np.cumsum(IS_TOKEN, axis=1) - 1, 0).astype(np.int32)
PIECES = (7, 1, 1, 3)


@functools.cache
def apply_of(config):
  @jax.jit
  def apply(params, *args):
    hidden, head, kv = Decoder(config).apply({'params': params}, *args)
    return project(hidden, head), kv

  return apply


def in_pieces(config, late=0, unread=0, misplaced=0):
  """Logits of both rows' tokens, made piece by piece.

  The others are faults: positions that are late by one after the first piece, a last slot of the
  cache that is not read, and positions of the cache's keys that are off by one.
  """
  params, cache, out, start = random_params(config), None, [], 0
  for size in PIECES:
    now, seen = slice(start, start + size), slice(0, start)
    places = POSITIONS + (late if start else 0)
    old = causal_mask(places[:, now], POSITIONS[:, seen], IS_TOKEN[:, seen])
    own = causal_mask(places[:, now], places[:, now], IS_TOKEN[:, now])
    mask = np.concatenate([old, own], axis=-1)
    mask[:, :, start - unread * bool(start) : start] = False
    read = (cache and [cache], POSITIONS[:, seen] + misplaced)
    logits, kv = apply_of(config)(params, TOKENS[:, now], places[:, now], mask, *read)
    cache = kv if cache is None else join(cache, kv)
    out.append(logits)
    start += size
  return np.concatenate(out, axis=1)[IS_TOKEN]


def gap(name, **fault):
  """Largest difference of a logit between pieces with a cache and one full pass."""
  config = CONFIGS[name]
  full = compiled_decoder(config)(random_params(config), TOKENS, POSITIONS, IS_TOKEN)[1]
  return np.abs(in_pieces(config, **fault) - np.asarray(full)[IS_TOKEN]).max()


@pytest.mark.parametrize('name', CONFIGS)
def test_cache_is_full_forward(name):
  assert gap(name) < 2e-5


@pytest.mark.parametrize(
  ('name', 'fault'), [('plain', 'late'), ('plain', 'unread'), ('windowed', 'misplaced')]
)
def test_cache_check_can_fail(name, fault):
  """A position late by one, a slot that is not read, a window that moves are seen."""
  assert gap(name, **{fault: 1}) > 1e-2


def test_cache_without_positions_is_refused():
  config, x = CONFIGS['windowed'], np.zeros((1, 1), np.int32)
  kv = np.zeros((3, 1, 1, 2, 8), np.float32)
  variables, mask = {'params': random_params(config)}, np.ones((1, 1, 2), bool)
  with pytest.raises(ValueError, match='window of 3 goes by the positions'):
    Decoder(config).apply(variables, x, x, mask, [{'k': kv, 'v': kv}])
