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
import operator
import re

import math_verify
import sympy
from math_verify import grader
from sympy.core import relational

from score_jax.tasks import answers, latex, units

# The longest reference answer of MATH has 159 characters. Longer than this is a policy that loops,
# and a parser that would need all of its time limit to find no answer in it.
_MAX_ANSWER_CHARS = 500
# Digits to which two numbers are told apart: more than an answer has characters.
_MAX_DIGITS = 600
_SPACING = re.compile(r'\\[!,;: ]|\\left|\\right|\s')
_DOTS = re.compile(r'\\[lc]?dots|\.\.\.')
_COLONS = re.compile(r'([0-9]+):([0-9]+)((?::[0-9]+)?)')
_BASE = re.compile(r'(?<=[0-9A-F}])_\{?([0-9]+)\}?')
# Each relation and how it reads from right to left.
_MIRRORED = {
  sympy.Eq: sympy.Eq,
  sympy.Lt: sympy.Gt,
  sympy.Gt: sympy.Lt,
  sympy.Le: sympy.Ge,
  sympy.Ge: sympy.Le,
}


def grade_final_answer(reference: str, text: str) -> tuple[float, str]:
  """Grades a text by the final answer it commits to.

  Args:
    reference: the reference answer, as LaTeX.
    text: all that the model wrote, or its `answers.final_part`.

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
  return (1.0, 'correct') if is_equal(reference, answer) else (0.0, 'wrong')


def is_equal(reference: str, answer: str) -> bool:
  r"""Whether two answers in LaTeX are the same mathematical object.

  Not symmetric: `x=5` may be answered by `5`, but `x<5` not by `5`.

  Args:
    reference: what is right.
    answer: what was given.

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
  if units.is_words(reference):
    return units.words(reference) == units.words(answer)
  if _marks(reference) != _marks(answer):
    return False
  if _is_other_kind(reference, answer):
    return False
  reference, words, measures = units.split_unit(reference)
  answer, other_words, other_measures = units.split_unit(answer)
  if words != other_words or (measures and other_measures and measures != other_measures):
    return False
  bare = _SPACING.sub('', reference)
  gold = None if _is_time(bare) else latex.parse(reference)
  if gold is None:
    # No mathematics to compare: the same text, spacing aside.
    return bare == _SPACING.sub('', answer)
  target = latex.parse(answer)
  return target is not None and _is_same(gold, target)


def _marks(answer: str) -> tuple[list[str], int, bool]:
  """What the parser drops: number bases, of which ten is the same as none; primes; dots."""
  bases = [base for base in _BASE.findall(answer) if base != '10']
  return bases, answer.count("'"), bool(_DOTS.search(answer))


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
  if not _holds(target):
    return False
  (names, gold), (other_names, target) = _without_names(gold), _without_names(target)
  if names and other_names and names != other_names:
    return False
  if not (_is_relational(gold) or _is_relational(target)):
    if _letters(gold) != _letters(target):
      return False
    if _is_number(gold) and _is_number(target):
      return _is_same_number(gold, target)
    if _shape(gold) != _shape(target):
      return False
    if isinstance(gold, sympy.Interval) and isinstance(target, sympy.Interval):
      # What is open is written down as the last two of its arguments.
      ends = zip(gold.args[:2], target.args[:2], strict=True)
      return gold.args[2:] == target.args[2:] and all(_is_same(*pair) for pair in ends)
    parts = _parts(gold), _parts(target)
    if parts[0] and parts[1]:
      return all(_is_same(*pair) for pair in zip(*parts, strict=True))
  elif _is_relational(gold) != _is_relational(target):
    if not (_names_a_value(gold) and _names_a_value(target)):
      return False
  elif type(gold) in _MIRRORED:
    if _is_multiple(gold, target):
      return True
    if isinstance(gold, sympy.Eq) and isinstance(target, sympy.Eq) and not _has_solutions(gold):
      return False
  return math_verify.verify(gold, target, allow_set_relation_comp=True, timeout_seconds=None)


def _is_relational(parsed) -> bool:
  return isinstance(parsed, sympy.Basic) and bool(parsed.atoms(relational.Relational))


def _is_multiple(gold: relational.Relational, target: sympy.Basic) -> bool:
  """Whether an equation or inequality is another one times a number."""
  is_mirrored = type(target) is not type(gold)
  if is_mirrored and type(target) is not _MIRRORED[type(gold)]:
    return False
  sides = (gold.lhs, gold.rhs, target.lhs, target.rhs)
  if not all(isinstance(side, sympy.Expr) for side in sides) or target.lhs == target.rhs:
    return False
  try:
    ratio = sympy.cancel((gold.lhs - gold.rhs) / (target.lhs - target.rhs))
  except sympy.PolynomialError:
    return False
  if not (ratio.is_number and ratio.is_finite):
    return False
  if isinstance(gold, sympy.Eq):
    return not _is_zero(ratio, sympy.S.Zero)
  return bool(ratio.is_negative if is_mirrored else ratio.is_positive)


def _has_solutions(equation: sympy.Eq) -> bool:
  """Whether an equation can be solved: math-verify takes all that have no solutions for one."""
  try:
    return bool(sympy.solve(equation, equation.free_symbols))
  except NotImplementedError:
    return False


def _without_names(parsed: sympy.Basic) -> tuple[list[str], sympy.Basic]:
  r"""(names, values) of `x = 1, y = 2`, in the order of the names, and of `x \in S`.

  The values are a tuple, or a set where all have one name. Anything else stays as it is, without
  names; so does a single equation, which may be one between expressions.
  """
  if isinstance(parsed, sympy.Eq) and isinstance(parsed.rhs, sympy.Set | sympy.Tuple):
    return [str(parsed.lhs)], parsed.rhs
  if not isinstance(parsed, sympy.FiniteSet | sympy.Tuple):
    return [], parsed
  if not all(isinstance(each, sympy.Eq) and each.lhs.is_Symbol for each in parsed.args):
    return [], parsed
  named = sorted(((each.lhs.name, each.rhs) for each in parsed.args), key=operator.itemgetter(0))
  names, values = [name for name, _ in named], [value for _, value in named]
  return names, sympy.FiniteSet(*values) if len(set(names)) == 1 else sympy.Tuple(*values)


def _names_a_value(parsed: sympy.Basic) -> bool:
  """False for an equation that stands for none: `2x + 3 = 5` and `x + y = 5` are not 5."""
  if not grader.is_equation(parsed) or not parsed.free_symbols:
    return True
  first = grader.take_first_relation(parsed)
  return grader.is_assignment_relation(parsed) and not first.lhs.has(sympy.Add)


def _holds(parsed) -> bool:
  """False where an equation within an answer has two different numbers as its sides."""
  if isinstance(parsed, sympy.MatrixBase):
    return True
  return all(
    _is_same_number(equation.lhs, equation.rhs)
    for equation in parsed.atoms(sympy.Eq)
    if _is_number(equation.lhs) and _is_number(equation.rhs)
  )


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


def _is_number(parsed) -> bool:
  return isinstance(parsed, sympy.Expr) and parsed.is_number


def _is_same_number(gold: sympy.Expr, target: sympy.Expr) -> bool:
  r"""Whether two numbers agree, a percent sign on one side alone being a unit.

  `50\%` answers a reference of 50, but no `\frac12\%` a probability of `\frac12`.
  """
  wanted, given = _amount(gold), _amount(target)
  if wanted is None and given is None:
    return _is_zero(gold, target)
  if wanted is None:
    return _is_zero(gold, given / 100) or (_is_zero(gold, given) and (gold - 1).is_positive is True)
  if given is None:
    return _is_zero(wanted / 100, target) or _is_zero(wanted, target)
  return _is_zero(wanted, given)


def _amount(number: sympy.Expr) -> sympy.Expr | None:
  """The p of `p%`, else None."""
  is_percent = isinstance(number, sympy.Mul) and number.args[-1] == latex.PERCENT
  return sympy.Mul(*number.args[:-1], evaluate=False) if is_percent else None


def _is_zero(left: sympy.Expr, right: sympy.Expr) -> bool:
  """Whether left - right is 0 as far as _MAX_DIGITS digits tell."""
  if left == right:
    return True
  if left.is_Rational and right.is_Rational:
    return False
  minus = sympy.Mul(-1, right, evaluate=False)
  difference = sympy.Add(left, minus, evaluate=False).evalf(15, maxn=_MAX_DIGITS)
  # A precision of 1 is how evalf says that it found no digit but 0.
  return all(part == 0 or (part.is_Float and part._prec == 1) for part in difference.as_real_imag())
