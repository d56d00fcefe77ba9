"""The scorer of tokens, against NumPy in float64 and finite differences."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.core.logits import CappedHead
from score_jax.objective.logprobs import score_tokens, token_logp

B, T, D, WORDS = 2, 7, 4, 33


def inputs_of_the_scorer():
  rng = np.random.default_rng(3)
  shapes = ((B, T, D), (D, WORDS), (B, T, D), (D, WORDS))
  arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
  return *map(jnp.asarray, arrays), jnp.asarray(rng.integers(0, WORDS, (B, T)))


def weighted_scores(hidden, head, ref_hidden, ref_head, targets, temperature, chunk):
  """A number that depends on log-probs and KL of each token, with another weight each."""
  scores = score_tokens(hidden, head, ref_hidden, ref_head, targets, temperature, chunk)
  weights_BT = jnp.arange(1.0, 1 + B * T).reshape(B, T)
  return jnp.sum(weights_BT * (scores.logp + 2 * scores.kl + 5 * scores.entropy)), scores


@pytest.mark.parametrize(('chunk', 'temperature'), [(1, 0.7), (3, 0.7), (T, 1.0), (128, 0.7)])
def test_score_tokens_is_numpys_log_softmax(chunk, temperature):
  arrays = inputs_of_the_scorer()
  gradient_of = jax.value_and_grad(weighted_scores, argnums=(0, 1, 2, 3), has_aux=True)
  scored = jax.jit(gradient_of, static_argnums=(5, 6))(*arrays, temperature, chunk)
  (_, scores), gradients = jax.device_get(scored)
  hidden, head, ref_hidden, ref_head = (np.asarray(x, float) for x in arrays[:4])
  z, ref_z = hidden @ head / temperature, ref_hidden @ ref_head / temperature
  logp = z - np.log(np.exp(z).sum(-1, keepdims=True))
  ref_logp = ref_z - np.log(np.exp(ref_z).sum(-1, keepdims=True))
  p, is_target = np.exp(logp), np.arange(WORDS) == np.asarray(arrays[4])[..., None]
  kl = (p * (logp - ref_logp)).sum(-1)
  np.testing.assert_allclose(scores.logp, logp[is_target].reshape(B, T), atol=1e-5)
  np.testing.assert_allclose(scores.ref_logp, ref_logp[is_target].reshape(B, T), atol=1e-5)
  np.testing.assert_allclose(scores.kl, kl, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(scores.entropy, -(p * logp).sum(-1), rtol=1e-5, atol=1e-5)
  # d logp / dz = onehot - p, d KL / dz = p (log p / q - KL); the entropy is only watched.
  dz = is_target - p + 2 * p * (logp - ref_logp - kl[..., None])
  dz *= np.arange(1.0, 1 + B * T).reshape(B, T, 1) / temperature
  np.testing.assert_allclose(gradients[0], dz @ head.T, rtol=1e-4, atol=1e-3)
  np.testing.assert_allclose(
    gradients[1], np.einsum('btd,btv->dv', hidden, dz), rtol=1e-4, atol=1e-3
  )
  assert not np.any(gradients[2]) and not np.any(gradients[3]), 'the reference is trained'


def test_score_tokens_makes_no_array_of_all_logits():
  def largest(chunk):
    gradient_of = jax.grad(lambda *x: weighted_scores(*x, 1.0, chunk)[0], argnums=(0, 1))
    text = str(jax.make_jaxpr(gradient_of)(*inputs_of_the_scorer()))
    return max(
      np.prod([int(n) for n in s.split(',')]) for s in re.findall(r'f32\[([\d,]+)\]', text)
    )

  assert largest(chunk=2) == B * 2 * WORDS
  assert largest(chunk=T) == B * T * WORDS


def test_score_tokens_is_float32_whatever_the_model_computes_in():
  hidden, head, ref_hidden, ref_head, targets = inputs_of_the_scorer()
  half = (hidden.astype(jnp.bfloat16), head, ref_hidden.astype(jnp.bfloat16), ref_head, targets)
  scores, in_chunks = (jax.jit(functools.partial(score_tokens, chunk=n))(*half) for n in (128, 3))
  assert {x.dtype for x in jax.tree.leaves(scores)} == {jnp.dtype('float32')}
  np.testing.assert_allclose(scores.logp, in_chunks.logp, atol=1e-5)
  with pytest.raises(ValueError, match='temperature=0 must be above 0'):
    score_tokens(*half, temperature=0)


@pytest.mark.parametrize('temperature', [1.0, 0.7])
def test_token_kl_against_finite_differences(temperature):
  rng = np.random.default_rng(2)
  hidden_D, ref_hidden_D = rng.normal(size=(2, 4))
  head_DV, ref_head_DV = rng.normal(size=(2, 4, 5))

  def log_softmax(z):
    return z - np.log(np.exp(z).sum())

  def kl64(hidden_D):
    logp = log_softmax(hidden_D @ head_DV / temperature)
    ref_logp = log_softmax(ref_hidden_D @ ref_head_DV / temperature)
    return np.sum(np.exp(logp) * (logp - ref_logp))

  steps = 1e-5 * np.eye(4)
  want = [(kl64(hidden_D + step) - kl64(hidden_D - step)) / 2e-5 for step in steps]

  def kl32(hidden_D):
    row = (hidden_D[None, None], jnp.float32(head_DV), jnp.float32(ref_hidden_D)[None, None])
    targets_BT = jnp.zeros((1, 1), jnp.int32)
    return score_tokens(*row, jnp.float32(ref_head_DV), targets_BT, temperature).kl[0, 0]

  value, got = jax.jit(jax.value_and_grad(kl32))(jnp.float32(hidden_D))
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
  assert float(value) == pytest.approx(kl64(hidden_D), rel=1e-5)


@pytest.mark.parametrize(('chunk', 'cap'), [(1, 0.0), (3, 1.5), (T, 0.0), (128, 1.5)])
def test_token_logp_is_numpys_log_softmax(chunk, cap):
  rng = np.random.default_rng(3)
  hidden, head = rng.normal(size=(B, T, D)), rng.normal(size=(D, WORDS))
  targets = rng.integers(0, WORDS, (B, T))
  z = hidden @ head
  squashed = cap * np.tanh(z / cap) if cap else z
  targets[0, 2], targets[1, 6] = squashed[0, 2].argmax(), squashed[1, 6].argmax()
  logp = squashed - np.log(np.exp(squashed).sum(-1, keepdims=True))
  is_target = np.arange(WORDS) == targets[..., None]

  def total(hidden, head):
    head = CappedHead(head, cap) if cap else head
    found, is_best = token_logp(hidden, head, jnp.asarray(targets), chunk)
    return jnp.sum(jnp.arange(1.0, 1 + B * T).reshape(B, T) * found), (found, is_best)

  gradient_of = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
  (_, (found, is_best)), grads = gradient_of(jnp.float32(hidden), jnp.float32(head))
  np.testing.assert_allclose(found, logp[is_target].reshape(B, T), atol=1e-5)
  np.testing.assert_array_equal(is_best, logp.argmax(-1) == targets)
  assert is_best[0, 2] and is_best[1, 6] and not is_best.all()
  # d logp / d logit = onehot - p; the cap's own slope is 1 - tanh^2.
  dz = (is_target - np.exp(logp)) * np.arange(1.0, 1 + B * T).reshape(B, T, 1)
  dz *= 1 - np.tanh(z / cap) ** 2 if cap else 1
  np.testing.assert_allclose(grads[0], dz @ head.T, rtol=1e-4, atol=1e-3)
  np.testing.assert_allclose(grads[1], np.einsum('btd,btv->dv', hidden, dz), rtol=1e-4, atol=1e-3)
