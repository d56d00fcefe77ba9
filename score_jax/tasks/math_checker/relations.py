"""Equations, inequalities and what is named by them, as parts of two answers to compare."""

import operator

import sympy
from sympy.core import function, relational

from score_jax.tasks.math_checker import exact

# Each relation and how it reads from right to left.
MIRRORED = {
  sympy.Eq: sympy.Eq,
  sympy.Lt: sympy.Gt,
  sympy.Gt: sympy.Lt,
  sympy.Le: sympy.Ge,
  sympy.Ge: sympy.Le,
}


def is_relational(parsed) -> bool:
  """Whether an answer is an equation or inequality, or holds one."""
  return isinstance(parsed, sympy.Basic) and bool(parsed.atoms(relational.Relational))


def is_multiple(gold: relational.Relational, target: sympy.Basic) -> bool:
  """Whether an equation or inequality is another one times a number."""
  is_mirrored = type(target) is not type(gold)
  if is_mirrored and type(target) is not MIRRORED[type(gold)]:
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
    return not exact.is_zero(ratio, sympy.S.Zero)
  return bool(ratio.is_negative if is_mirrored else ratio.is_positive)


def solutions(equation: sympy.Eq) -> list[sympy.Basic]:
  """What sympy finds; math-verify takes all equations that have no solutions for one."""
  try:
    found = sympy.solve(equation, equation.free_symbols, dict=True)
  except NotImplementedError:
    return []
  return [
    sympy.Tuple(*(sympy.Eq(name, value, evaluate=False) for name, value in solution.items()))
    for solution in found
  ]


def without_names(parsed: sympy.Basic) -> tuple[list[str], sympy.Basic]:
  r"""(names, values) of `x = 1, y = 2`, `(x,y) = (1,2)`, in the order of the names; of `x \in S`.

  The values are a tuple, or a set where all have one name. Anything else stays as it is, without
  names; so does a single equation, which may be one between expressions.
  """
  if isinstance(parsed, sympy.Eq) and _is_point_of_names(parsed.lhs, parsed.rhs):
    named = sorted(zip(parsed.lhs, parsed.rhs, strict=True), key=lambda pair: pair[0].name)
    return [name.name for name, _ in named], sympy.Tuple(*(value for _, value in named))
  if isinstance(parsed, sympy.Eq) and isinstance(parsed.rhs, sympy.Set | sympy.Tuple):
    is_point = isinstance(parsed.lhs, sympy.Set | sympy.Tuple)
    is_named = is_point or is_name(parsed.lhs)
    return ([str(parsed.lhs)], parsed.rhs) if is_named else ([], parsed)
  if not isinstance(parsed, sympy.FiniteSet | sympy.Tuple):
    return [], parsed
  if not all(isinstance(each, sympy.Eq) and each.lhs.is_Symbol for each in parsed.args):
    return [], parsed
  named = sorted(((each.lhs.name, each.rhs) for each in parsed.args), key=operator.itemgetter(0))
  names, values = [name for name, _ in named], [value for _, value in named]
  is_one = len(set(names)) == 1
  return (names[:1], sympy.FiniteSet(*values)) if is_one else (names, sympy.Tuple(*values))


def _is_point_of_names(left, right) -> bool:
  """Whether `(x,y) = (1,2)` says what each letter is."""
  if not (isinstance(left, sympy.Tuple) and isinstance(right, sympy.Tuple)):
    return False
  return len(left) == len(right) and all(each.is_Symbol for each in left)


def is_name(left: sympy.Basic) -> bool:
  r"""Whether the left side of an equation is a name: `x`, `f(2)`, `AB`, `\angle ABC`.

  Anything else says something about its letters: `e^x = 5` and `xy = 5` are not 5.
  """
  if left.is_Symbol or isinstance(left, function.AppliedUndef):
    return True
  if not isinstance(left, sympy.Mul) or not all(factor.is_Symbol for factor in left.args):
    return False
  names = {factor.name for factor in left.args}
  if 'angle' in names:
    names -= {'angle', 'm'}
  return all(len(name) == 1 and name.isupper() for name in names)


def named_value(parsed: sympy.Basic) -> sympy.Basic | None:
  """What an answer stands for, None for an equation or inequality that stands for nothing.

  `x = 5` and `2 + 3 = 5` are 5, while `2x + 3 = 5`, `x + y = 5`, `5 = x + y` and `x < 5` are not.
  """
  if not is_relational(parsed):
    return parsed
  if not isinstance(parsed, sympy.Eq):
    return None
  left, right = parsed.lhs, parsed.rhs
  is_sum = exact.is_number(left) and exact.is_number(right)
  is_named = is_name(left) and not right.has(left)
  return right if is_named or is_sum else None


def as_sets(gold, target) -> tuple:
  """Both, an inequality as the set of its solutions where the other one is a set."""
  if isinstance(gold, sympy.Set) and not isinstance(gold, sympy.FiniteSet):
    return gold, _solution_set(target)
  if isinstance(target, sympy.Set) and not isinstance(target, sympy.FiniteSet):
    return _solution_set(gold), target
  return gold, target


def _solution_set(parsed):
  """The numbers that fulfil an inequality in one unknown; anything else as it is."""
  if not _is_range(parsed) or isinstance(parsed, sympy.Set):
    return parsed
  unknowns = parsed.atoms(function.AppliedUndef) or parsed.free_symbols
  if len(unknowns) != 1:
    return parsed
  unknown = sympy.Dummy(real=True)
  try:
    return parsed.xreplace({unknowns.pop(): unknown}).as_set()
  except NotImplementedError:
    return parsed


def is_finite_against_range(gold, target) -> bool:
  """Whether one is a finite set and the other a range, such as an interval or an inequality."""
  pair = (gold, target)
  return any(isinstance(each, sympy.FiniteSet) for each in pair) and any(map(_is_range, pair))


def _is_range(parsed) -> bool:
  if isinstance(parsed, sympy.Set):
    return not isinstance(parsed, sympy.FiniteSet)
  if isinstance(parsed, sympy.And):
    return not parsed.has(sympy.Eq)
  return isinstance(parsed, relational.Relational) and not isinstance(parsed, sympy.Eq)


def is_solved(gold: relational.Relational, target: relational.Relational) -> bool:
  """Whether both say of one letter, in the same way, what it is or how it compares."""
  name = gold.lhs
  return (
    name.is_Symbol
    and (type(gold), name) == (type(target), target.lhs)
    and not any(each.rhs.has(name) for each in (gold, target))
  )


def holds(parsed) -> bool:
  """False where an equation within an answer has two different numbers as its sides."""
  if isinstance(parsed, sympy.MatrixBase):
    return True
  return all(
    exact.is_same_number(equation.lhs, equation.rhs)
    for equation in parsed.atoms(sympy.Eq)
    if exact.is_number(equation.lhs) and exact.is_number(equation.rhs)
  )
