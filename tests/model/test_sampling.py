"""The sampler: tables made by hand, frequencies against softmax, and true greedy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from score_jax.model.sampling import sample, sampling_logp

compiled_sample = jax.jit(sample, static_argnames=('top_k', 'top_p'))
LOGITS = np.array([0.3, -1.2, 2.0, 0.0, 1.1, -0.4, 0.9], np.float32)


def softmax(x):
  p = np.exp(x - x.max(axis=-1, keepdims=True))
  return p / p.sum(axis=-1, keepdims=True)


def probs(p, temperature=1.0, **kwargs):
  """Probabilities that the sampler draws from, for a row of probabilities."""
  logits = jnp.log(jnp.asarray([p], jnp.float32))
  return np.exp(np.asarray(sampling_logp(logits, jnp.float32(temperature), **kwargs)))[0]


@pytest.mark.parametrize('temperature', [0.25, 0.7, 1.0, 3.0])
def test_temperature_divides_logits(temperature):
  logp = sampling_logp(jnp.asarray(LOGITS[None]), jnp.float32(temperature))
  np.testing.assert_allclose(np.exp(logp[0]), softmax(LOGITS / temperature), rtol=1e-5)


@pytest.mark.parametrize(
  ('p', 'options', 'want'),
  [
    # Top-k: the k most likely, of equals the lower ids.
    ([0.1, 0.4, 0.2, 0.3], {'top_k': 1}, [0, 1, 0, 0]),
    ([0.1, 0.4, 0.2, 0.3], {'top_k': 2}, [0, 4 / 7, 0, 3 / 7]),
    ([0.1, 0.4, 0.2, 0.3], {'top_k': 4}, [0.1, 0.4, 0.2, 0.3]),
    ([0.1, 0.4, 0.2, 0.3], {'top_k': 99}, [0.1, 0.4, 0.2, 0.3]),
    ([0.2, 0.2, 0.4, 0.2], {'top_k': 2}, [1 / 3, 0, 2 / 3, 0]),
    # Top-p: the smallest set of the most likely that reaches p; always at least one.
    ([0.1, 0.4, 0.2, 0.3], {'top_p': 0.39}, [0, 1, 0, 0]),
    ([0.1, 0.4, 0.2, 0.3], {'top_p': 0.41}, [0, 4 / 7, 0, 3 / 7]),
    ([0.1, 0.4, 0.2, 0.3], {'top_p': 0.89}, [0, 4 / 9, 2 / 9, 3 / 9]),
    ([0.1, 0.4, 0.2, 0.3], {'top_p': 0.91}, [0.1, 0.4, 0.2, 0.3]),
    ([0.1, 0.4, 0.2, 0.3], {'top_p': 1.0}, [0.1, 0.4, 0.2, 0.3]),
    ([0.25, 0.25, 0.25, 0.25], {'top_p': 0.6}, [1 / 3, 1 / 3, 1 / 3, 0]),
    ([0.1, 0.4, 0.2, 0.3], {'top_p': 1e-6}, [0, 1, 0, 0]),
    # Both: p counts what top-k left, so 4/7 > 0.5 is reached by the first token alone.
    ([0.1, 0.4, 0.2, 0.3], {'top_k': 2, 'top_p': 0.5}, [0, 1, 0, 0]),
    ([0.1, 0.4, 0.2, 0.3], {'top_k': 3, 'top_p': 0.5}, [0, 4 / 7, 0, 3 / 7]),
  ],
)
def test_truncation_table(p, options, want):
  np.testing.assert_allclose(probs(p, **options), want, atol=1e-6)


def test_temperature_comes_before_top_p():
  """[.5, .3, .2] at temperature 0.5 is [.25, .09, .04] / .38: the first alone reaches 0.6."""
  np.testing.assert_allclose(probs([0.5, 0.3, 0.2], 0.5, top_p=0.6), [1, 0, 0], atol=1e-6)
  np.testing.assert_allclose(probs([0.5, 0.3, 0.2], 1.0, top_p=0.6), [5 / 8, 3 / 8, 0], atol=1e-6)


def test_rows_are_cut_on_their_own():
  logits = jnp.log(jnp.asarray([[0.7, 0.2, 0.1], [0.1, 0.45, 0.45]], jnp.float32))
  p = np.exp(np.asarray(sampling_logp(logits, jnp.float32(1.0), top_p=0.6)))
  np.testing.assert_allclose(p, [[1, 0, 0], [0, 0.5, 0.5]], atol=1e-6)


def draw(temperature, num=20_000, seed=0, **options):
  keys = jax.random.split(jax.random.key(seed), num)
  logits = np.broadcast_to(LOGITS, (num, LOGITS.size))
  return compiled_sample(logits, keys, np.float32(temperature), **options)


@pytest.mark.parametrize(
  ('temperature', 'options'), [(1.0, {}), (0.7, {}), (1.0, {'top_k': 4}), (0.7, {'top_p': 0.8})]
)
def test_frequencies_are_the_probabilities(temperature, options):
  tokens, logp = map(np.asarray, draw(temperature, **options))
  logits = jnp.asarray(LOGITS[None])
  p = np.exp(np.asarray(sampling_logp(logits, jnp.float32(temperature), **options)))[0]
  counts = np.bincount(tokens, minlength=LOGITS.size)
  assert counts[p == 0].sum() == 0  # what is cut is never drawn
  is_kept = p > 0
  expected = p[is_kept].astype(np.float64)
  expected *= tokens.size / expected.sum()
  assert stats.chisquare(counts[is_kept], expected).pvalue > 1e-3
  # The reported number is the log of the renormalised probability of the token that was drawn.
  np.testing.assert_allclose(logp, np.log(p[tokens]), atol=1e-6)


def test_frequency_check_can_fail():
  """20,000 draws tell temperature 1.0 from 0.9."""
  tokens, _ = draw(0.9)
  counts = np.bincount(np.asarray(tokens), minlength=LOGITS.size)
  expected = softmax(LOGITS.astype(np.float64)) * counts.sum()
  assert stats.chisquare(counts, expected).pvalue < 1e-6


@pytest.mark.parametrize('options', [{}, {'top_k': 3}, {'top_p': 0.5}])
def test_temperature_zero_is_greedy(options):
  """The most likely token, the lowest id of equals, logp 0, and nothing is divided by 0."""
  logits = jnp.array([[0.0, 5.0, 5.0, -1.0], [1e4, -1e4, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
  with jax.debug_nans(True):
    for seed in range(3):
      keys = jax.random.split(jax.random.key(seed), 3)
      tokens, logp = compiled_sample(logits, keys, jnp.float32(0.0), **options)
      assert tokens.tolist() == [1, 0, 0]
      assert logp.tolist() == [0.0, 0.0, 0.0]
  assert tokens.dtype == jnp.int32


def test_draw_depends_on_own_key_and_logits():
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(size=(16, 9)), jnp.float32)
  keys = jax.random.split(jax.random.key(3), 16)
  tokens, logp = compiled_sample(logits, keys, jnp.float32(1.0))
  order = rng.permutation(16)
  permuted, permuted_logp = compiled_sample(logits[order], keys[order], jnp.float32(1.0))
  assert permuted.tolist() == tokens[order].tolist()
  np.testing.assert_allclose(permuted_logp, logp[order], rtol=1e-6)
  for b in (0, 7):
    alone, _ = compiled_sample(logits[b : b + 1], keys[b : b + 1], jnp.float32(1.0))
    assert alone[0] == tokens[b]
  assert len(set(tokens.tolist())) > 3  # not one token for all


@pytest.mark.parametrize(
  'options', [{'top_k': -1}, {'top_p': 0.0}, {'top_p': 1.1}, {'top_p': -0.5}]
)
def test_bad_options_are_refused(options):
  name, value = next(iter(options.items()))
  with pytest.raises(ValueError, match=f'{name}={value}'):
    sampling_logp(jnp.zeros((1, 3)), jnp.float32(1.0), **options)


def test_shapes_are_checked():
  with pytest.raises(AssertionError):
    sampling_logp(jnp.zeros(3), jnp.float32(1.0))
  with pytest.raises(AssertionError):
    sampling_logp(jnp.zeros((1, 3), jnp.bfloat16), jnp.float32(1.0))
  with pytest.raises(AssertionError):
    sample(jnp.zeros((2, 3)), jax.random.split(jax.random.key(0), 3), jnp.float32(1.0))
