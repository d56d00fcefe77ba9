"""How a rollout's cache is cut, shared and read changes nothing that is sampled."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import random_params, tiny_decoder

from score_jax.model.decoder import Decoder
from score_jax.rollout import generation, sizes
from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.multi_turn import rollout

G = 3
CONFIG = tiny_decoder(
  num_layers=2, embed_dim=16, mlp_dim=32, head_dim=4, window=6, window_pattern=(True, False)
)
PARAMS = random_params(CONFIG, seed=1)
SPEC = RolloutSpec(
  prompt_tokens=5, turn_tokens=(5, 7), followup_ids=((9, 3, 10),), end_of_turn_ids=(1, 2)
)
# Four problems, with holes at the left, in the middle and at the right.
PROMPT = np.array([[4, 7, 3, 8, 5], [0, 6, 9, 9, 4], [7, 0, 0, 5, 0], [0, 0, 0, 0, 10]], np.int32)


def sample(spec=SPEC, params=PARAMS, **how):
  problem, sample = np.repeat(np.arange(4), G), np.tile(np.arange(G), 4)
  keys, prompt = episode_keys(0, 5, problem, sample), PROMPT[problem]
  return rollout(Decoder(CONFIG), spec, params, prompt, prompt > 0, keys, 1.0, **how)


def renamed(number, spec=SPEC):
  """An equal spec by another name: what is compiled does not know of a change to the module."""
  return dataclasses.replace(spec, end_of_turn_ids=(1,) + number * (2,))


def cut_small(monkeypatch, steps=3, piece=2, length=4):
  """Blocks, pieces and lengths of a few tokens, and two rows that are given some at once."""
  monkeypatch.setattr(sizes, '_MOST_STEPS', steps)
  monkeypatch.setattr(sizes, '_LEAST_PIECE', piece)
  monkeypatch.setattr(sizes, '_LEAST_LENGTH', length)
  monkeypatch.setattr(sizes, '_LEAST_GIVEN', 4)
  monkeypatch.setattr(sizes, '_LEAST_QUARTER', 1)


def one_by_one(spec):
  """Tokens and log-probabilities without a cache: all rows run anew, whole, for each token."""
  decoder, T = Decoder(CONFIG), spec.first_slot(2)

  @jax.jit
  def logits_of(tokens_BT, last_B):
    positions = jnp.broadcast_to(jnp.arange(T), tokens_BT.shape)
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((T, T), bool)), (*tokens_BT.shape, T))
    hidden, head, _ = decoder.apply({'params': PARAMS}, tokens_BT, positions, mask)
    return (hidden @ head)[jnp.arange(len(last_B)), last_B]

  problem, which = np.repeat(np.arange(4), G), np.tile(np.arange(G), 4)
  keys = episode_keys(0, 5, problem, which)
  rows, logps = [PROMPT[p][PROMPT[p] > 0].tolist() for p in problem], [[] for _ in problem]
  for turn, budget in enumerate(spec.turn_tokens):
    going = set(range(12))
    for n in range(budget):
      tokens = np.zeros((12, T), np.int32)
      for b, row in enumerate(rows):
        tokens[b, : len(row)] = row
      logits = logits_of(tokens, np.array([len(row) - 1 for row in rows]))
      for b in sorted(going):
        key = jax.random.fold_in(jax.random.fold_in(keys[b], turn), n)
        logp = jax.nn.log_softmax(logits[b])
        rows[b].append(int(jax.random.categorical(key, logp)))
        logps[b].append(float(logp[rows[b][-1]]))
        going -= {b} if rows[b][-1] in spec.end_of_turn_ids else set()
    for b in range(12) if turn == 0 else ():
      rows[b] += [1] * (b in going) + list(spec.followup_ids[0])
  return rows, logps


@pytest.mark.parametrize('instruction', [(9, 3, 10), ()])
def test_a_rollout_samples_what_a_model_without_a_cache_does(whole, instruction):
  """Also where nothing stands between two answers, and a row waits for others to end theirs."""
  spec = dataclasses.replace(SPEC, followup_ids=(instruction,))
  e = whole if spec == SPEC else sample(spec)
  rows, logps = one_by_one(spec)
  for b in range(12):
    assert e.tokens[b, e.is_token[b]].tolist() == rows[b]
    np.testing.assert_allclose(e.sampled_logp[b, e.is_sampled[b]], logps[b], atol=1e-4)


@pytest.fixture(scope='module')
def whole():
  """Each turn in one block, each row in a slot of its own."""
  e = sample()
  assert e.is_truncated.any(axis=0).all() and not e.is_truncated.all(axis=0).any()
  return e


@pytest.mark.parametrize('num_slots', [12, 4])
def test_blocks_pieces_and_lengths_change_nothing(whole, monkeypatch, num_slots):
  cut_small(monkeypatch)
  spec = renamed(num_slots)
  cut = sizes.Sizes.of(spec, num_slots)
  assert (cut.steps, cut.piece, len(cut.lengths)) == (3, 4, 4)
  assert {shape.rows for shape in cut.blocks()} == {num_slots, num_slots // 4}
  cut = sample(spec, slots=num_slots)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), cut, whole)
  forced = {0: (whole.tokens[:, 5:10], whole.is_token[:, 5:10])}
  again = sample(spec, slots=num_slots, forced=forced)
  np.testing.assert_array_equal(again.tokens, whole.tokens)
  np.testing.assert_array_equal(again.positions, whole.positions)


FAULTS = {
  # Keys and values one token too far, while a block is decoded and when it is put away.
  'late_column': (
    generation.kv_cache,
    'write',
    lambda f: lambda kv, new, slot: f(kv, new, slot + 1),
  ),
  'late_block': (
    generation,
    'put',
    lambda f: lambda kv, new, slot, first: f(kv, new, slot, first + 1),
  ),
  # Another slot's prompt.
  'other_prompt': (generation, 'take', lambda f: lambda kv, slot, n: f(kv, slot[::-1], n)),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_cache_that_is_written_wrong_is_seen(whole, monkeypatch, fault):
  """The checks above see keys and values that lie where they should not."""
  cut_small(monkeypatch, length=100)
  module, name, change = FAULTS[fault]
  monkeypatch.setattr(module, name, change(getattr(module, name)))
  number = list(FAULTS).index(fault)  # other shapes: what is compiled knows of no change
  wrong = sample(renamed(20 + number), slots=5 + number)
  assert np.abs(wrong.sampled_logp - whole.sampled_logp).max() > 1e-2


def test_nothing_is_compiled_after_the_first_rollout(monkeypatch):
  """Whatever lengths come: every program is run once at the beginning."""
  cut_small(monkeypatch)
  spec = renamed(7)
  programs = (generation.extend, generation.copy_prompts, generation.decode_block)

  def compiled():
    return sum(program._cache_size() for program in programs)

  rounds, cut = [], sizes.Sizes.of(spec, 4)
  with_params = len(cut.blocks()) + len(cut.past())
  sample(spec, slots=4, on_round=lambda: rounds.append(compiled()))
  assert with_params + 1 <= 10
  # Whoever watches hears of each program, also of those that another test has compiled.
  assert rounds[with_params] == compiled() and len(rounds) > with_params + 1
  before = compiled()
  rng = np.random.default_rng(0)
  for _ in range(4):
    sample(spec, slots=4, budgets=rng.integers(1, SPEC.turn_tokens, (12, 2), endpoint=True))
  assert compiled() == before
  # A base model of another type, beside the policy: its own programs, at its first rollout too.
  half = PARAMS | {'final_norm': jax.tree.map(jnp.bfloat16, PARAMS['final_norm'])}
  sample(spec, slots=4, params=half)
  assert compiled() == before + with_params


def test_a_budget_of_its_own_cuts_a_row(whole):
  budgets = np.tile(SPEC.turn_tokens, (12, 1))
  budgets[::2] = 1, 3
  e = sample(budgets=budgets)

  def answer(episode, row, turn):
    return episode.tokens[row, episode.turn[row] == turn + 1].tolist()

  for row in range(12):
    assert answer(e, row, 0) == answer(whole, row, 0)[: budgets[row, 0]]
    assert len(answer(e, row, 1)) <= budgets[row, 1]
    if row % 2:
      assert answer(e, row, 1) == answer(whole, row, 1)


def test_a_prompt_without_a_token_is_refused():
  prompt = PROMPT * (np.arange(4) != 2)[:, None]
  keys = episode_keys(0, 5, np.arange(4), np.zeros(4, np.int32))
  with pytest.raises(ValueError, match=r'prompts of rows \[2\] have no token'):
    rollout(Decoder(CONFIG), SPEC, PARAMS, prompt, prompt > 0, keys, 1.0)
