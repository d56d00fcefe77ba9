"""Edit distances, against values by hand and a plain loop."""

import itertools

import numpy as np
import pytest

from score_jax.analysis.edits import edit_distance_ratio


def plain_distance(a, b):
  """Levenshtein's distance: row i, column j is the distance of a[:i] and b[:j]."""
  d = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
  for i, j in itertools.product(range(1, len(a) + 1), range(1, len(b) + 1)):
    substituted = d[i - 1][j - 1] + (a[i - 1] != b[j - 1])
    d[i][j] = min(d[i - 1][j] + 1, d[i][j - 1] + 1, substituted)
  return d[-1][-1]


@pytest.mark.parametrize(
  ('a', 'b', 'ratio'),
  [
    ('kitten', 'sitting', 3 / 13),  # k -> s, e -> i, and a g
    ('', '', 0),
    ('', 'abc', 1),
    ('abc', 'abc', 0),
    ('abc', 'xyz', 1 / 2),
    ('ab', 'ba', 2 / 4),  # a swap is two edits
    ('naïve', 'naive', 1 / 10),  # characters, not bytes
    ('a😀b', 'ab', 1 / 5),
  ],
)
def test_edit_distance_ratio_by_hand(a, b, ratio):
  assert edit_distance_ratio(a, b) == pytest.approx(ratio)
  assert edit_distance_ratio(b, a) == pytest.approx(ratio)


def test_edit_distance_ratio_is_that_of_a_plain_loop():
  rng = np.random.default_rng(0)
  for length in (1, 5, 30, 90):  # beyond the 64 bits of a machine word too
    for _ in range(10):
      a, b = (''.join(rng.choice(list('ab é\n'), rng.integers(length, 2 * length))) for _ in 'ab')
      want = plain_distance(a, b) / (len(a) + len(b))
      assert edit_distance_ratio(a, b) == pytest.approx(want), (a, b)
