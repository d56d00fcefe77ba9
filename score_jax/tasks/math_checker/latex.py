r"""Reads an answer in LaTeX into sympy, by math-verify's parser (latex2sympy2_extended)."""

import re
from fractions import Fraction

import sympy
from latex2sympy2_extended import latex2sympy2
from math_verify import parser
from sympy.core import function, relational
from sympy.logic import boolalg

from score_jax.tasks.math_checker.printed import printed

# What can only separate thousands: `5,\!525`, `5{,}525`, `5\,525`.
_THOUSANDS = re.compile(r'(?<=[0-9])(?:,\\! ?|\{,\}|\\,)(?=[0-9]{3}(?![0-9]))')
# A fraction without braces takes one digit or letter each, as in TeX: `\frac123` is 3/2.
_BARE_FRACTION = re.compile(
  r'\\[dtc]?frac\s*(\\pi(?![a-zA-Z])|[0-9a-zA-Z])\s*(\\pi(?![a-zA-Z])|[0-9a-zA-Z])'
)
# A mixed number written with a slash: `2 1/3`.
_MIXED = re.compile(r'(?<![0-9.,}])([0-9]+)\s+([0-9]+)/([0-9]+)(?![0-9.,])')
# Numbers that can be read in one way only, signs aside.
_PLAIN = re.compile(
  r'(-?) ?(?:([0-9]+(?:\.[0-9]+)?|\.[0-9]+)'
  r'|([1-9][0-9]{0,2}(?:(?:,|\{,\}|,\\! ?|\\,)[0-9]{3})+(?:\.[0-9]+)?)'
  r'|([0-9]+(?:\.[0-9]+)?[eE][-+]?[0-9]{1,3})'
  r'|\\[dt]?frac\{(-?[0-9]+)\}\{([0-9]+)\}|([0-9]+)/([0-9]+))'
)
# A name that is compared, and would be the imaginary unit: `i \ge 5`, `I \in (0,2)`.
_COMPARED = re.compile(
  r'(?<![^\s<>=])([iI])(?=\s*(?:[<>]|\\(?:[lg]e|[lg]eq|[lg]eqslant|[lg]t|in)(?![A-Za-z])))'
  r'|((?:[<>]|\\(?:[lg]e|[lg]eq|[lg]eqslant|[lg]t)(?![A-Za-z]))\s*)([iI])(?=\s*(?:[<>,]|\\[lg][et]|$))'
)
_REPEATING = re.compile(r'(-?) ?([0-9]*)\.([0-9]*)\\overline\{([0-9]+)\}')
# The parser drops the index of a function, which only a logarithm has.
_INDEXED = re.compile(
  r'\\(?:(?:ar?c?)?(?:sin|cos|tan|cot|sec|csc)h?|ln|exp|gcd|lcm|max|min|det|floor|ceil)(?![A-Za-z])'
  r'\s*(?:\^\s*(?:\{[^{}]*\}|\S)\s*)?_'
)
_TRIGONOMETRIC = re.compile(r'\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)(?![a-z])')
_DEGREES = re.compile(r'(?<![0-9.,}])([0-9]+(?:\.[0-9]+)?) ?\^ ?(?:\\circ(?![a-z])|\{ ?\\circ ?\})')
# A number in another base than ten, as the parser does not know it: `(101)_2`.
_BASED = re.compile(r'\(\s*([0-9]+)\s*\)\s*(?=_)')
_BASES = {
  word: str(number)
  for number, word in enumerate(
    'two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen '
    'sixteen'.split(),
    start=2,
  )
}
_BASE_IN_WORDS = re.compile(
  r'(_[\s{(]*(?:\\(?:text|math)[a-z]*|\\mbox)?[\s{(]*(?:base\s*)?)'
  rf'({"|".join(_BASES)})(?![a-z])'
)
_AROUND_BASE = re.compile(r'\\(?:text|math)[a-z]*|\\mbox|base|[_\s(){}]')
# What is longer is never evaluated, see `exact`.
_MAX_DIGITS = 20_000
PERCENT = sympy.UnevaluatedExpr(sympy.Rational(1, 100))
_NORMAL = parser.NormalizationConfig(units=False, malformed_operators=True, nits=True, boxed='none')
_KEEP_CASE = latex2sympy2.ConversionConfig(lowercase_symbols=False)


def plain_number(latex: str) -> Fraction | None:
  r"""The number that an answer is, where it is a plain one, else None.

  Example:
    >>> plain_number('-1,234.50'), plain_number(r'\frac{2}{4}'), plain_number('3x')
    (Fraction(-2469, 2), Fraction(1, 2), None)
  """
  match = _PLAIN.fullmatch(latex)
  if match is None:
    repeating = _REPEATING.fullmatch(latex)
    return _repeating(*repeating.groups()) if repeating else None
  sign, decimal, grouped, scientific, top, bottom, left, right = match.groups()
  top, bottom = top or left, bottom or right
  if bottom is None:
    number = Fraction(decimal or scientific or re.sub(r'[^0-9.]', '', grouped))
  elif int(bottom) == 0:
    return None
  else:
    number = Fraction(int(top), int(bottom))
  return -number if sign else number


def _repeating(sign: str, whole: str, fixed: str, period: str) -> Fraction:
  r"""`0.1\overline{6}` is (16 - 1) / 90."""
  nines = 10 ** len(fixed) * (10 ** len(period) - 1)
  number = Fraction(int(whole + fixed + period) - int(whole + fixed or '0'), nines)
  return -number if sign else number


class _Reader(latex2sympy2._Latex2Sympy):
  """The library's parser, but for what that adds or drops.

  It adds what stands side by side: 2(3) is 5 to it, and 2 3 too. It drops an index of a number, a
  transposition sign or prime on what is no matrix, and what stands behind a bar.
  """

  def convert_postfix_list(self, arr, i=0):
    first = self.convert_postfix(arr[i])
    if i + 1 == len(arr):
      return first
    if isinstance(first, list):  # an operator such as d/dx
      return super().convert_postfix_list(arr, i)
    left, right = arr[i].getText(), arr[i + 1].getText()
    if left[-1].isdecimal() and (right[0].isdecimal() or right[0] == '.'):
      raise ValueError(f'two numbers side by side: {left} {right}')
    if any(op.degree() for op in arr[i].postfix_op()):
      raise ValueError(f'degrees and more: {left} {right}')
    rest = self.convert_postfix_list(arr, i + 1)
    if getattr(first, 'is_Matrix', False) or getattr(rest, 'is_Matrix', False):
      return self.mat_mul_flat(first, rest)
    is_mixed = left.isdecimal() and right.startswith(r'\frac') and rest.is_Rational
    return first + rest if is_mixed and rest > 0 else self.mul_flat(first, rest)

  def convert_postfix(self, postfix):
    for op in postfix.postfix_op():
      if op.eval_at():
        raise ValueError(f'a value at a point: {postfix.getText()}')
      if op.transpose() and not getattr(super().convert_postfix(postfix), 'is_Matrix', False):
        return sympy.Symbol(postfix.getText())
    return super().convert_postfix(postfix)

  def convert_atom(self, atom):
    number = atom.number_subexpr()
    index = number and number.subexpr()
    if not index:
      return super().convert_atom(atom)
    base = _AROUND_BASE.sub('', index.getText())
    digits = number.NUMBER().getText()
    return self.parse_number(digits) if base == '10' else sympy.Symbol(f'{digits}_{base}')

  def parse_number(self, text):
    # The library evaluates every number as a program text, which takes longer than all the rest.
    digits = text.replace(',', '')
    return sympy.Integer(int(digits)) if digits.isdecimal() else super().parse_number(text)


class _QuickReader(_Reader):
  """The same with ANTLR's quick strategy, 4 times as fast on MATH's answers.

  It finds the same tree as the full strategy or none at all (ANTLR's documentation of SLL).
  """

  def create_parser(self, latex_str):
    antlr = super().create_parser(latex_str)
    antlr._interp.predictionMode = type(antlr._interp.predictionMode).SLL
    return antlr


def parse(latex: str) -> sympy.Basic | sympy.MatrixBase | None:
  """LaTeX as a sympy object with exact numbers, or None where all of it is not one value.

  Args:
    latex: an answer without its units.

  Returns:
    A number, expression, relation, set, tuple or matrix, mostly unevaluated. Percent is a product
    with PERCENT, and the letter i is the imaginary unit.
  """
  number = plain_number(latex)
  if number is not None:
    return sympy.Rational(number.numerator, number.denominator)
  percent = re.fullmatch(r'([^,]?[^-+,]*[^-+,\\])\s*\\?%', latex)
  if percent:
    amount = parse(percent.group(1))
    is_number = isinstance(amount, sympy.Expr) and amount.is_number
    return sympy.Mul(amount, PERCENT, evaluate=False) if is_number else None
  if _TRIGONOMETRIC.search(latex):
    # The parser drops degree signs.
    latex = _DEGREES.sub(r'(\\frac{\1\\pi}{180})', latex)
    if r'\circ' in latex:
      return None
  if _INDEXED.search(latex):
    return None
  if r'\approx' in latex:
    return _rounded(latex)
  latex = _THOUSANDS.sub('', latex).replace(r'\varnothing', r'\emptyset')
  latex = _BARE_FRACTION.sub(r'\\frac{\1}{\2}', latex)
  latex = _MIXED.sub(r'\1\\frac{\2}{\3}', latex)
  latex = _BASE_IN_WORDS.sub(lambda match: match[1] + _BASES[match[2]], _BASED.sub(r'\1', latex))
  latex = printed(_COMPARED.sub(lambda m: (m[2] or '') + 'Q_{' + (m[1] or m[3]) + '}', latex))
  if latex is None:
    return None
  parsed = _read(parser.normalize_latex(latex, _NORMAL))
  is_value = isinstance(parsed, sympy.Basic | sympy.MatrixBase)
  if not is_value or parsed.has(sympy.zoo, sympy.nan):
    return None
  exact = {decimal: sympy.Rational(str(decimal)) for decimal in parsed.atoms(sympy.Float)}
  # Not the i over which a sum runs.
  imaginary = {i: sympy.I for i in parsed.free_symbols if i.name == 'i'}
  # Numbers are evaluated without regard to a second argument, the base.
  based = {
    log: sympy.Mul(sympy.log(log.args[0]), 1 / sympy.log(log.args[1]), evaluate=False)
    for log in parsed.atoms(sympy.log)
    if len(log.args) == 2
  }
  if (exact or imaginary or based) and _is_vast(parsed):
    # What is built anew is evaluated.
    return None
  try:
    read = parsed.xreplace(exact | imaginary | based)
    if read is sympy.true and isinstance(parsed, sympy.Eq):
      # An equation of numbers, which falls together where it is built anew: `0.5 + 0.25 = 0.75`.
      sides = (side.xreplace(exact | imaginary | based) for side in parsed.args)
      return sympy.Eq(*sides, evaluate=False)
    return None if _is_truth(read) else read
  except (AttributeError, TypeError, ValueError):
    # A sum that runs over i and an i outside of it; a chain that falls together (x = 2.5 = 5/2);
    # a complex number in an inequality.
    return None


def _is_vast(parsed: sympy.Basic | sympy.MatrixBase) -> bool:
  """Whether a power, factorial or binomial of numbers is too long to be worked out."""
  if isinstance(parsed, sympy.MatrixBase):
    return any(map(_is_vast, parsed.flat()))
  # The inner ones first, so that nothing that is vast itself is measured.
  for part in sympy.postorder_traversal(parsed):
    if not isinstance(part, sympy.Pow | sympy.factorial | sympy.binomial) or not part.is_number:
      continue
    sizes = [abs(each.evalf(3)) for each in part.args]
    if not all(size.is_Float or size.is_Rational for size in sizes):
      continue
    if isinstance(part, sympy.Pow):
      base, exponent = sizes
      length = exponent * abs(sympy.log(base, 10).evalf(3)) if base else 0
    else:
      length = min(sizes) * 4
    if length > _MAX_DIGITS:
      return True
  return False


def _is_truth(parsed: sympy.Basic | sympy.MatrixBase) -> bool:
  """Whether an answer is or holds a statement of numbers alone: all true ones would be one.

  Such as `2 < 3`, and `i = 5`, which has become false. An interval says so of its ends.
  """
  if isinstance(parsed, sympy.Interval | sympy.MatrixBase):
    return False
  if isinstance(parsed, relational.Relational) and not isinstance(parsed, sympy.Eq):
    return not parsed.free_symbols and not parsed.atoms(function.AppliedUndef)
  return isinstance(parsed, boolalg.BooleanAtom) or any(map(_is_truth, parsed.args))


def _rounded(latex: str) -> sympy.Basic | None:
  r"""The exact side of `\frac23 \approx 0.67` if it rounds so, the value of `x \approx 0.67`."""
  left, right = latex.split(r'\approx', 1)
  digits = right.strip().removeprefix(r'\$')
  rounded, exact = plain_number(digits), parse(left.strip())
  if rounded is None or exact is None:
    return None
  rounded = sympy.Rational(rounded.numerator, rounded.denominator)
  if exact.is_Symbol:
    return rounded
  if not (isinstance(exact, sympy.Expr) and exact.is_number and '/' not in digits):
    return None
  half_place = sympy.Rational(1, 2 * 10 ** len(digits.partition('.')[2]))
  return exact if (half_place - abs(exact - rounded)).is_nonnegative else None


def _read(latex: str) -> object:
  """What the parser makes of LaTeX: by the quick strategy, then by the full one, else None."""
  is_real = not parser.should_treat_as_complex(latex)
  for reader in (_QuickReader, _Reader):
    try:
      return reader(is_real=is_real, config=_KEEP_CASE).parse(latex)
    except MemoryError:
      raise
    except Exception:
      # It raises whatever comes to hand for what it cannot read; that is no answer.
      continue
  return None
