"""Are two numbers, or two expressions with letters, the same to as many digits as it takes?"""

import math
import zlib

import sympy
from sympy.core import function
from sympy.functions.elementary import hyperbolic

from score_jax.tasks.math_checker import latex

# Digits to which two numbers are distinguished: more than an answer has characters, and more yet
# where a part of it is very large or small, up to a limit that bounds the time.
_DIGITS = 600
_MAX_DIGITS = 20_000
# A part as long as this is nothing special.
_PLAIN_DIGITS = 50
# Functions that evalf does not know are computed in plain floats, whose last digits are noise.
_NOISY_DIGITS = 50
# Slow to so many digits at a fraction, or defined for whole numbers alone.
_SLOW = (sympy.factorial, sympy.factorial2, sympy.binomial, sympy.gamma, sympy.Sum, sympy.Product)


def is_number(parsed) -> bool:
  """Whether a parsed answer is a number, and no expression with letters."""
  return isinstance(parsed, sympy.Expr) and parsed.is_number


def is_same_number(gold: sympy.Expr, target: sympy.Expr) -> bool:
  r"""Whether two numbers agree, a percent sign on one side alone being a unit.

  `50\%` answers a reference of 50, but no `\frac12\%` a probability of `\frac12`.
  """
  wanted, found = _amount(gold), _amount(target)
  if wanted is None and found is None:
    return is_zero(gold, target)
  if wanted is None:
    return is_zero(gold, found / 100) or (is_zero(gold, found) and (gold - 1).is_positive is True)
  if found is None:
    return is_zero(wanted / 100, target) or is_zero(wanted, target)
  return is_zero(wanted, found)


def _amount(number: sympy.Expr) -> sympy.Expr | None:
  """The p of `p%`, else None."""
  is_percent = isinstance(number, sympy.Mul) and number.args[-1] == latex.PERCENT
  return sympy.Mul(*number.args[:-1], evaluate=False) if is_percent else None


def is_zero(left: sympy.Expr, right: sympy.Expr) -> bool:
  """Whether left - right is 0 to as many digits as its parts have.

  False where these are too many to compute.
  """
  if left == right:
    return True
  if left.is_Rational and right.is_Rational:
    return False
  digits = _DIGITS + _more_digits(left) + _more_digits(right)
  if digits > _MAX_DIGITS:
    return False
  minus = sympy.Mul(-1, right, evaluate=False)
  difference = sympy.Add(left, minus, evaluate=False).evalf(15, maxn=int(digits))
  # A precision of 1 is how evalf says that it found no digit but 0.
  return all(part == 0 or (part.is_Float and part._prec == 1) for part in difference.as_real_imag())


def differ_at_a_point(gold: sympy.Expr, target: sympy.Expr) -> bool:
  """Whether two expressions have different values where each letter is a certain fraction.

  False also where a value cannot be computed: equality at a point proves nothing, difference does.
  True where it would take too many digits.
  """
  if gold.has(*_SLOW) or target.has(*_SLOW):
    return False
  functions = gold.atoms(function.AppliedUndef) | target.atoms(function.AppliedUndef)
  letters = {call: sympy.Symbol(str(call)) for call in functions}
  left, right = gold.xreplace(letters), target.xreplace(letters)
  point = {letter: _fraction(letter.name) for letter in left.free_symbols | right.free_symbols}
  digits = _DIGITS + _more_digits(left, point) + _more_digits(right, point)
  if digits > _MAX_DIGITS:
    return left != right
  minus = sympy.Mul(-1, right, evaluate=False)
  difference = sympy.Add(left, minus, evaluate=False).evalf(15, subs=point, maxn=int(digits))
  parts = difference.as_real_imag()
  if not all(part == 0 or part.is_Float for part in parts):
    return False
  noise = sympy.Rational(1, 10 ** (int(digits) - _NOISY_DIGITS))
  return not all(part == 0 or part._prec == 1 or abs(part) < noise for part in parts)


def _more_digits(number: sympy.Basic, point: dict | None = None) -> float:
  """Digits beyond the usual ones that tell apart what is very large or small within a number.

  These are the lengths of its parts, doubled by each function around them (a cosine near 1), and
  those of a power, which a hyperbolic function is as well. Infinite where they are too many.
  """
  if number.is_Rational:
    bits = number.p.bit_length() + number.q.bit_length()
    return bits * 0.302 if bits * 0.302 > _PLAIN_DIGITS else 0
  digits = sum(_more_digits(each, point) for each in number.args)
  if digits > _MAX_DIGITS:
    return math.inf
  if isinstance(number, sympy.Function):
    digits *= 2
  if isinstance(number, sympy.Pow | sympy.exp):
    base, exponent = number.as_base_exp()
  elif isinstance(number, hyperbolic.HyperbolicFunction | sympy.factorial):
    base = exponent = number.args[0]
  else:
    return digits
  length = _size(exponent, point) * max(1, abs(math.log10(_size(base, point) or 1)), digits)
  return digits + 2 * length if length > _PLAIN_DIGITS else digits


def _size(number: sympy.Expr, point: dict | None) -> float:
  """The absolute value of what is not too long to compute; 0 where it has none."""
  if not number.is_Integer:
    number = abs(number.evalf(3, subs=point))
  try:
    return abs(float(number))
  except OverflowError:
    return math.inf
  except TypeError:
    return 0.0


def _fraction(name: str) -> sympy.Rational:
  """A fraction between 0 and 1 that is the same for a name everywhere."""
  return sympy.Rational(zlib.crc32(name.encode()) % 999_983 + 1, 999_984)
