"""Metrics by level, in natural order."""

from score_jax.analysis.levels import by_level
from score_jax.analysis.statistics import summarise


def record(rewards, finals, level=''):
  return {
    'level': level,
    'rewards': rewards,
    'answers': [f'it is {final}' for final in finals],
    'finals': finals,
    'tokens': [3] * len(rewards),
    'truncated': [False] * len(rewards),
  }


RECORDS = [
  record([1, 1], ['a', 'a'], 'Level 10'),
  record([0, 1], ['b', 'a'], 'Level 9'),
  record([1, 0], ['a', None], 'Level 9'),
  record([0, 0], [None, None], 'Level 10'),
  record([0, 0], ['e', 'f'], 'Level 2'),
]


def test_by_level_is_in_natural_order():
  got = by_level(RECORDS)
  assert list(got) == ['Level 2', 'Level 9', 'Level 10']
  assert got['Level 9'] == summarise(RECORDS[1:3])
  assert got['Level 10'] == summarise([RECORDS[0], RECORDS[3]])
  odd = by_level([record([1], ['a'], level) for level in ('b', '', '10', 'a3', '9', 'a20', '?')])
  assert list(odd) == ['', '9', '10', '?', 'a3', 'a20', 'b']
  assert by_level([]) == {}
