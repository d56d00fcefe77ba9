"""Results by the problems' difficulty."""

import re
from collections.abc import Mapping, Sequence

from score_jax.analysis.statistics import summarise


def by_level(records: Sequence[Mapping]) -> dict[str, dict[str, dict[str, float]]]:
  """Summarises each difficulty by itself.

  Args:
    records: of an evaluation.

  Returns:
    A level -> `summarise` of its records; the levels in natural order, in which 'Level 9' stands
    before 'Level 10'. Empty where there are no records.

  Example:
    >>> once = {'tokens': [1], 'truncated': [False]}
    >>> records = [{'level': '10', 'rewards': [0], **once}, {'level': '9', 'rewards': [1], **once}]
    >>> {level: m['acc_t1']['mean'] for level, m in by_level(records).items()}
    {'9': 1.0, '10': 0.0}

  Source: arXiv:2409.12917, the results by difficulty of MATH.
  """
  groups: dict[str, list[Mapping]] = {}
  for record in records:
    groups.setdefault(record['level'], []).append(record)
  return {level: summarise(groups[level]) for level in sorted(groups, key=_natural)}


def _natural(level: str) -> list:
  # Text and numbers take turns, beginning with (perhaps empty) text: like compares with like.
  parts = re.split(r'([0-9]+)', level)
  return [int(part) if i % 2 else part for i, part in enumerate(parts)]
