r"""Are two mathematical answers equal? Runs inside a worker process, never in the trainer.

The comparison is math-verify's (https://github.com/huggingface/Math-Verify). It bounds its time by
SIGALRM, which works in a main thread alone and leaves C code running, so that is off here and the
worker's own limits hold (workers.py). A wrong answer called right is worse than the reverse, since
a policy learns to find it. Hence four departures from math-verify's defaults:

1. The whole answer must parse. By default it picks the last number out of a text that does not.
2. Decimals are exact. By default two numbers are equal when they agree to 6 places, which makes
   0.0000672 equal to 0.000067 and 10^-7 equal to 0.
3. Bases count. By default `52_8`, `52_9` and `52` are the same number.
4. Units are dropped only where the answer holds text (`5 \text{ cm}`). By default a variable that
   looks like a unit goes too: `5t`, `2m` and `3ab` are equal to 5, 2 and 3.
"""

import dataclasses
import re

import math_verify
import sympy

from score_jax.tasks import answers

# The longest reference answer of MATH has 159 characters. Longer than this is a policy that loops,
# and a parser that would need all of its time limit to find no answer in it.
_MAX_ANSWER_CHARS = 500
_TEXT = re.compile(r'\\(?:text|mbox|mathrm|rm\b)')
_SPACING = re.compile(r'\\[!,;: ]|\\left|\\right|\s')
_BASE = re.compile(r'(?<=[0-9A-F}])_\{?([0-9]+)\}?')


def grade_final_answer(reference: str, text: str) -> tuple[float, str]:
  """Grades a text by the final answer it commits to.

  Args:
    reference: the reference answer, as LaTeX.
    text: all that the model wrote.

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
  """
  reference, answer = answers.clean(reference), answers.clean(answer)
  if not reference or not answer:
    return False
  if reference == answer:
    return True
  if _bases(reference) != _bases(answer):
    return False
  parsed = _parse(reference)
  if parsed is None:
    # No mathematics to compare, such as a time of day: the same text, spacing aside.
    return _SPACING.sub('', reference) == _SPACING.sub('', answer)
  given = _parse(answer)
  return given is not None and math_verify.verify(
    parsed, given, allow_set_relation_comp=True, timeout_seconds=None
  )


def _latex_config(units: bool) -> math_verify.LatexExtractionConfig:
  """Takes the whole answer as one piece of LaTeX: no search in it for boxes or anchor words."""
  config = math_verify.LatexExtractionConfig(boxed_match_priority=-1)
  normal = dataclasses.replace(config.normalization_config, units=units)
  return dataclasses.replace(config, normalization_config=normal)


_WITH_UNITS, _WITHOUT_UNITS = _latex_config(units=True), _latex_config(units=False)


def _parse(latex: str) -> sympy.Basic | sympy.MatrixBase | None:
  """LaTeX as a sympy object with exact decimals, or None where it does not parse to a value."""
  parsed = math_verify.parse(
    f'${latex}$',
    [_WITH_UNITS if _TEXT.search(latex) else _WITHOUT_UNITS],
    fallback_mode='no_fallback',
    extraction_mode='first_match',
    parsing_timeout=None,
  )
  if not parsed or parsed[0].has(sympy.zoo, sympy.nan):
    return None
  decimals = parsed[0].atoms(sympy.Float)
  return parsed[0].xreplace({decimal: sympy.Rational(str(decimal)) for decimal in decimals})


def _bases(latex: str) -> list[str]:
  """The number bases written in an answer; base ten is the same as none."""
  return [base for base in _BASE.findall(latex) if base != '10']
