"""How much of an answer was rewritten."""

from rapidfuzz.distance import Levenshtein


def edit_distance_ratio(a: str, b: str) -> float:
  """The edit distance of two texts, relative to how long they are together.

  A model that gives its first answer again has a ratio of 0; supervised corrections pile up there.

      ratio = distance(a, b) / (len(a) + len(b))

  Args:
    a: a text.
    b: another.

  Returns:
    In [0, 1], with lengths and Levenshtein distance (insertions, deletions and substitutions, each
    counted 1) in characters: at most 1/2 for texts of the same length, and 1 only where one of the
    two is empty; 0 for two empty texts.

  Example:
    >>> edit_distance_ratio('1 + 2 = 4', '1 + 2 = 3')  # one substitution in 18 characters
    0.05555555555555555

  Source: arXiv:2409.12917, Fig. 4, which does not name its unit; here it is characters, not tokens,
  so that policies with other tokenizers compare.
  """
  length = len(a) + len(b)
  return Levenshtein.distance(a, b) / length if length else 0.0
