r"""Are two mathematical answers equal? Runs inside a worker process, never in the trainer.

LaTeX is read and compared by math-verify (https://github.com/huggingface/Math-Verify), which bounds
its time by SIGALRM. That works in a main thread alone and leaves C code running, so it is off here
and the worker's own limits hold (workers.py). A wrong answer called right is worse than the
reverse, since a policy learns to find it. Hence these departures from math-verify's defaults:

1. The whole answer must parse. By default it picks the last number out of a text that does not.
2. Numbers are exact. By default two are equal when they agree to 6 places, which makes 10^-7 equal
   to 0. Plain ones are compared as fractions, all others by their digits: as many as it takes.
3. Letters count, and their case: by default `3R^2` equals `3r^2`, and `x/x` equals 1.
4. Words count. Units are dropped only where one side alone has them; by default `5 \text{ cm}`
   equals `5 \text{ m}`, a.m. equals p.m., and 5 million equals 5.
5. Bases and primes count, and so do braces: `\{1,2\}` is not the point `(1,2)`.
6. An equation stands for its right side only where its left side is a name (`x = 5`) and its
   numbers agree. By default `5 = 4` counts as 4 and `2x + 3 = 5` as 5.

What it still gets wrong is listed in docs/math_checker.md.
"""

import math
import re
from collections.abc import Sequence

import math_verify
import sympy

from score_jax.tasks.math_checker import answers, exact, latex, names, relations, units

# The longest reference answer of MATH has 159 characters. Longer than this is a policy that loops,
# and a parser that would need all of its time limit to find no answer in it.
_MAX_ANSWER_CHARS = 500
_SPACING = re.compile(r'\\[!,;: ]|\\left|\\right|\s')
_DOTS = re.compile(r'\\[lc]?dots|\.\.\.')
_COLONS = re.compile(r'([0-9]+):([0-9]+)((?::[0-9]+)?)')
_INEQUALITY = re.compile(r'[<>]|\\(?:[lg]e|[lg]eq|[lg]eqslant|ne|neq)(?![a-z])')
_CONNECTIVE = re.compile(r'(?<![a-z])(?:or|and)(?![a-z])|\\(?:lor|land|vee|wedge)(?![a-z])')
# The order of a derivative, `f^{(2)}`, which the parser takes for a power.
_ORDER = re.compile(r'[A-Za-z]\s*\^\s*\{\s*\(\s*[0-9a-z]\s*\)\s*\}')
# Three letters of an angle, whose middle one is its vertex.
_ANGLE = re.compile(r'\\(?:angle|triangle)\s*([A-Z]{3})(?![A-Za-z])')
# The inverse of a function, which the parser takes for a power.
_INVERSE = re.compile(r'(?<![A-Za-z\\])[fghFGH]\s*\^\s*\{?\s*-\s*1\s*\}?\s*\(')


def grade_final_answer(reference: str, text: str, question: str = '') -> tuple[float, str]:
  """Grades a text by the final answer it commits to.

  Args:
    reference: the reference answer, as LaTeX.
    text: all that the model wrote, or its `answers.final_part`.
    question: the problem; its words may be the answer's unit, besides those of `nouns`.

  Returns:
    (reward, reason): (1.0, 'correct'), (0.0, 'wrong'), (0.0, 'no_answer'), (0.0, 'too_long'), and
    (0.0, 'no_reference') for a problem whose reference answer is empty.
  """
  if not reference.strip():
    return 0.0, 'no_reference'
  answer = answers.extract_answer(text)
  if answer is None:
    return 0.0, 'no_answer'
  if len(answer) > _MAX_ANSWER_CHARS:
    return 0.0, 'too_long'
  return (1.0, 'correct') if is_equal(reference, answer, question) else (0.0, 'wrong')


def is_equal(reference: str, answer: str, question: str = '') -> bool:
  r"""Whether two answers in LaTeX are the same mathematical object.

  Not symmetric: `x=5` may be answered by `5`, but `x<5` not by `5`.

  Args:
    reference: what is right.
    answer: the model's.
    question: see `grade_final_answer`.

  Example:
    >>> is_equal(r'\frac{1}{2}', '0.5'), is_equal(r'\frac{1}{3}', '0.333333')
    (True, False)
    >>> is_equal('(3,4]', '[3,4]'), is_equal('52_8', '52_9')
    (False, False)
    >>> is_equal(r'5 \text{ cm}', '5'), is_equal(r'5 \text{ cm}', r'5 \text{ m}')
    (True, False)
  """
  reference, answer = answers.clean(reference), answers.clean(answer)
  if not reference or not answer:
    return False
  if reference == answer:
    return True
  reference = reference.removeprefix(r'\approx').lstrip()
  numbers = latex.plain_number(reference), latex.plain_number(answer)
  if None not in numbers:
    return numbers[0] == numbers[1]
  pairs = names.paired(reference, answer)
  if pairs is not None:
    return all(is_equal(*pair) for pair in pairs)
  reference, answer = names.as_letters(reference), names.as_letters(answer)
  if not _INEQUALITY.search(reference + answer):
    reference, answer = names.with_commas(reference), names.with_commas(answer)
  if units.is_words(reference):
    return units.words(reference) == units.words(answer)
  if _marks(reference) != _marks(answer) or _has_other_names(reference, answer):
    return False
  if _is_other_kind(reference, answer):
    return False
  known = units.named_in(f'{reference} {question}')
  reference, words, measures = units.split_unit(reference, known)
  answer, other_words, other_measures = units.split_unit(answer, known)
  if words != other_words or (measures and other_measures and measures != other_measures):
    return False
  bare = _SPACING.sub('', reference)
  gold = None if _is_time(bare) else latex.parse(reference)
  if gold is None:
    # No mathematics to compare: the same text, spacing aside.
    return bare == _SPACING.sub('', answer)
  target = latex.parse(answer)
  return target is not None and _is_same(gold, target)


def _marks(answer: str) -> tuple[int, int, int, bool, list[str]]:
  """What the parser drops: primes, quotes, dots, and brackets around the order of a derivative.

  Also what stands between inequalities, which are a mere list to it.
  """
  connectives = _CONNECTIVE.findall(answer) if _INEQUALITY.search(answer) else []
  orders = len(_ORDER.findall(answer))
  return answer.count("'"), answer.count('"'), orders, bool(_DOTS.search(answer)), connectives


def _has_other_names(reference: str, answer: str) -> bool:
  """Whether both name an angle and not the same one, or one is the inverse of a function."""
  one, other = (
    [min(name, name[::-1]) for name in _ANGLE.findall(text)] for text in (reference, answer)
  )
  if one and other and one != other:
    return True
  # `f^{-1}(x) = 3x` may answer `3x`.
  return '=' not in reference + answer and (
    len(_INVERSE.findall(reference)) != len(_INVERSE.findall(answer))
  )


def _is_time(bare: str) -> bool:
  """Whether `12:30` is a time of day: a ratio would be in lowest terms."""
  match = _COLONS.fullmatch(bare)
  return match is not None and (bool(match[3]) or math.gcd(int(match[1]), int(match[2])) > 1)


def _is_other_kind(reference: str, answer: str) -> bool:
  """Whether one is a tuple or interval and the other a set or a list, which it may not stand for.

  A list of equations may: `x = 1, y = 2` is the point (1,2).
  """
  kinds = {_kind(reference): reference, _kind(answer): answer}
  others = [text for kind, text in kinds.items() if kind in ('set', 'list')]
  return 'tuple' in kinds and any('=' not in text for text in others)


def _kind(answer: str) -> str:
  r"""'set' for `\{1,2\}`, 'tuple' for `(1,2)` and intervals, 'list' for `1,2`, else nothing."""
  bare = _SPACING.sub('', answer)
  depth = 0
  depths = [depth := depth + (char in '([{') - (char in ')]}') for char in bare]
  if depth or ',' not in bare:
    return ''
  if bare.startswith('\\{') and 0 not in depths[1:-1]:
    return 'set'
  if bare[0] in '([' and 0 not in depths[:-1]:
    return 'tuple'
  return 'list' if any(c == ',' and not d for c, d in zip(bare, depths, strict=True)) else ''


def _is_same(gold, target) -> bool:
  """Whether two parsed answers are the same; sound short cuts first, then math-verify."""
  if not relations.holds(target):
    return False
  names, gold = relations.without_names(_shortened(gold))
  other_names, target = relations.without_names(_shortened(target))
  if names and other_names and names != other_names:
    return False
  gold, target = relations.as_sets(gold, target)
  if sympy.S.Reals in (gold, target):
    return gold == target
  if isinstance(gold, sympy.FiniteSet) and isinstance(target, sympy.FiniteSet):
    return _is_same_list(gold.args, target.args)
  if relations.is_finite_against_range(gold, target):
    return False
  is_relational = relations.is_relational(gold), relations.is_relational(target)
  if is_relational == (True, True):
    return _is_same_relation(gold, target)
  if any(is_relational):
    gold, target = relations.named_value(gold), relations.named_value(target)
    return gold is not None and target is not None and _is_same(gold, target)
  return _is_same_value(gold, target)


def _is_same_value(gold, target) -> bool:
  """The same for numbers, expressions, sets, tuples and matrices."""
  gold, target = _as_matrix(gold), _as_matrix(target)
  if _letters(gold) != _letters(target):
    return False
  if exact.is_number(gold) and exact.is_number(target):
    return exact.is_same_number(gold, target)
  if _shape(gold) != _shape(target):
    return False
  if isinstance(gold, sympy.Interval) and isinstance(target, sympy.Interval):
    # What is open is written down as the last two of its arguments.
    ends = zip(gold.args[:2], target.args[:2], strict=True)
    return gold.args[2:] == target.args[2:] and all(_is_same(*pair) for pair in ends)
  # Two numbers in round brackets are a point or an interval.
  if isinstance(gold, sympy.Tuple) and isinstance(target, sympy.Interval):
    target = _pair(target)
  elif isinstance(target, sympy.Tuple) and isinstance(gold, sympy.Interval):
    gold = _pair(gold)
  parts = _parts(gold), _parts(target)
  if parts[0] and parts[1]:
    return all(_is_same(*pair) for pair in zip(*parts, strict=True))
  if isinstance(gold, sympy.Expr) and isinstance(target, sympy.Expr):
    # A text such as `abc` may be one symbol and stand for a product of three.
    if not (gold.is_Symbol or target.is_Symbol) and exact.differ_at_a_point(gold, target):
      return False
  finite = sympy.FiniteSet | sympy.Tuple
  if isinstance(gold, finite) and isinstance(target, finite):
    return _is_same_list(gold.args, target.args) and _verify(gold, target)
  return _verify(gold, target)


def _as_matrix(parsed):
  """Sums and multiples of matrices worked out; anything else, powers too, as it is."""
  is_plain = isinstance(parsed, sympy.MatAdd | sympy.MatMul) and not parsed.has(sympy.MatPow)
  return parsed.as_explicit() if is_plain else parsed


def _pair(interval: sympy.Interval) -> sympy.Basic:
  """An open interval as a pair."""
  start, end, *is_open = interval.args
  return sympy.Tuple(start, end) if all(is_open) else interval


def _is_same_relation(gold, target) -> bool:
  """The same for equations, inequalities, chains of them, and lists that hold some."""
  if isinstance(gold, sympy.And) and isinstance(target, sympy.And):
    return _is_same_list(gold.args, target.args)
  if isinstance(gold, sympy.And) or isinstance(target, sympy.And):
    return False
  if type(gold) not in relations.MIRRORED:
    return _verify(gold, target)
  if relations.is_multiple(gold, target):
    return True
  if type(target) not in relations.MIRRORED:
    return False
  if relations.is_solved(gold, target):
    return _is_same(gold.rhs, target.rhs)
  is_equation = isinstance(gold, sympy.Eq) and isinstance(target, sympy.Eq)
  found = relations.solutions(gold) if is_equation else []
  if (is_equation and not found) or not _verify(gold, target):
    return False
  sides = gold.lhs - gold.rhs, target.lhs - target.rhs
  if not all(isinstance(side, sympy.Expr) for side in sides):
    return True
  if not (exact.differ_at_a_point(*sides) and exact.differ_at_a_point(sides[0], -sides[1])):
    return True
  return is_equation and _is_same_list(found, relations.solutions(target))


def _shortened(parsed):
  """`x = 2 + 3 = 5` as `x = 5`; a chain whose values differ, such as `x = y = 5`, as it is."""
  if not (isinstance(parsed, sympy.And) and all(isinstance(c, sympy.Eq) for c in parsed.args)):
    return parsed
  # The order is lost where the chain was rebuilt, as it is for decimals.
  links = getattr(parsed, '_unsorted_args', ())
  if not links or not all(isinstance(link, sympy.Eq) for link in links):
    return parsed
  if not all(_is_same(link.lhs, link.rhs) for link in links[1:]):
    return parsed
  return sympy.Eq(links[0].lhs, links[-1].rhs, evaluate=False)


def _is_same_list(wanted: Sequence, found: Sequence) -> bool:
  """Whether each element of one has its equal in the other, in any order."""
  left = list(found)
  for each in wanted:
    place = next((n for n, other in enumerate(left) if _is_same(each, other)), None)
    if place is None:
      return False
    del left[place]
  return not left


def _verify(gold, target) -> bool:
  return math_verify.verify(gold, target, allow_set_relation_comp=True, timeout_seconds=None)


def _letters(parsed) -> set[str]:
  """Characters of all names in an answer (a text `abc` may be a product a b c)."""
  return set(''.join(symbol.name for symbol in parsed.free_symbols))


def _shape(parsed) -> tuple[int, ...]:
  """How many elements an answer has; an interval has 2, for it may also be meant as a pair."""
  if isinstance(parsed, sympy.MatrixBase):
    return parsed.shape
  if isinstance(parsed, sympy.FiniteSet | sympy.Tuple):
    return (len(parsed),)
  if isinstance(parsed, sympy.Interval):
    return (2,)
  return (0,) if isinstance(parsed, sympy.Set) else (1,)


def _parts(parsed) -> list:
  """The elements of a tuple or matrix, which are compared one by one; none of anything else."""
  if isinstance(parsed, sympy.MatrixBase):
    return parsed.flat()
  return list(parsed.args) if isinstance(parsed, sympy.Tuple) else []
