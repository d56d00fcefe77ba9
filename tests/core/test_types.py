"""Episodes: their turns, and their real tokens moved together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.core.types import Episode, compact, turn_masks

# Two rows in 7 slots, `.` a hole:  a b . 1 1 . 2   and   a . . 1 . e 2   with 1 and 2 the tokens
# sampled in each turn and e an end of turn that was appended, not sampled.
IS_TOKEN = np.array([[1, 1, 0, 1, 1, 0, 1], [1, 0, 0, 1, 0, 1, 1]], bool)

TURN = np.array([[0, 0, 0, 1, 1, 0, 2], [0, 0, 0, 1, 0, 0, 2]])


def holey_episode():
  is_sampled = TURN > 0
  return Episode(
    tokens=jnp.arange(10, 24).reshape(2, 7),
    positions=jnp.asarray(np.where(IS_TOKEN, np.cumsum(IS_TOKEN, axis=1) - 1, 99)),
    is_token=jnp.asarray(IS_TOKEN),
    turn=jnp.asarray(TURN),
    is_sampled=jnp.asarray(is_sampled),
    sampled_logp=jnp.where(is_sampled, -0.5 - jnp.arange(14.0).reshape(2, 7), 0.0),
    is_truncated=jnp.array([[False, False], [True, False]]),
  )


def test_turn_masks():
  episode = holey_episode()
  want = [[[turn == k and turn > 0 for turn in row] for k in (1, 2, 3)] for row in TURN]
  masks_BKT = np.asarray(turn_masks(episode, 3))
  np.testing.assert_array_equal(masks_BKT, want)
  assert masks_BKT[:, :2].any(axis=-1).all() and not masks_BKT[:, 2].any()
  # A given turn has tokens and trains none.
  given = episode.replace(is_sampled=jnp.asarray(TURN == 2))
  masks_BKT = np.asarray(turn_masks(given, 2))
  assert not masks_BKT[:, 0].any() and masks_BKT[:, 1].any(axis=-1).all()


@pytest.mark.parametrize('length', [5, 6, 9])
def test_compact_is_a_stable_left_shift(length):
  episode = holey_episode()
  short = jax.jit(compact, static_argnums=1)(episode, length)
  again = jax.jit(compact, static_argnums=1)(short, length)
  episode, short, again = jax.device_get((episode, short, again))
  for name in ('tokens', 'is_token', 'turn', 'is_sampled', 'sampled_logp'):
    for b in range(2):
      real = [
        x for x, is_token in zip(getattr(episode, name)[b], IS_TOKEN[b], strict=True) if is_token
      ]
      want = [x.item() for x in real] + [0] * (length - len(real))
      assert getattr(short, name)[b].tolist() == want, name
      assert getattr(short, name).dtype == getattr(episode, name).dtype
  np.testing.assert_array_equal(short.positions, [range(length)] * 2)
  np.testing.assert_array_equal(short.is_truncated, episode.is_truncated)
  # By hand: the first row keeps slots 0, 1, 3, 4, 6 of 10..16, the second 0, 3, 5, 6 of 17..23.
  assert short.tokens[:, :5].tolist() == [[10, 11, 13, 14, 16], [17, 20, 22, 23, 0]]
  np.testing.assert_array_equal(again.tokens, short.tokens)
