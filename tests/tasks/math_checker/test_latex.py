"""What is read of an answer in LaTeX."""

import json
import logging

import math_verify
import pytest
import sympy

from score_jax.tasks.math_checker import answers, latex


@pytest.mark.parametrize(
  'text, number',
  [
    ('7', (7, 1)),
    ('-0.50', (-1, 2)),
    ('.5', (1, 2)),
    ('1,234', (1234, 1)),
    ('1{,}234{,}567', (1234567, 1)),
    (r'1,\!234', (1234, 1)),
    (r'1\,234', (1234, 1)),
    ('1.5e-3', (3, 2000)),
    (r'\frac{-6}{4}', (-3, 2)),
    (r'-\dfrac{6}{4}', (-3, 2)),
    ('3/6', (1, 2)),
    (r'0.1\overline{6}', (1, 6)),
    (r'-2.\overline{27}', (-25, 11)),
    (r'.\overline{9}', (1, 1)),
    ('9' * 400, (int('9' * 400), 1)),
  ],
)
def test_plain_numbers(text, number):
  assert latex.plain_number(text).as_integer_ratio() == number


@pytest.mark.parametrize(
  'text',
  # Those that can be read in two ways, or are more than a number, are for the parser.
  [
    *('', '-', '.', '1.', '1.2.3', '1,23', '0,123', '1,2,3', '1, 234', '12,34', '1 2', '--1', '+1'),
    *('1/0', r'\frac{1}{0}', r'\frac12', '1/2/3', '1/-2', '1.5/2', '2\\frac12', '5%', 'x'),
    *('\u0665', '\uff15', '\u00bd', '5\n', '5\0', '0x10', '1_000', 'inf', 'nan', '5!', '1e5000'),
  ],
)
def test_what_is_no_plain_number(text):
  assert latex.plain_number(text) is None


@pytest.fixture(scope='module')
def references(data_dir):
  """All different reference answers of MATH, unwrapped."""
  found = set()
  for name in ('train', 'test'):
    for line in (data_dir / 'math' / f'{name}.jsonl').read_text(encoding='utf-8').splitlines():
      found.add(answers.clean(json.loads(line)['answer']))
  return sorted(found - {''})


@pytest.mark.slow
def test_plain_numbers_are_what_math_verify_reads(references):
  logging.getLogger('math_verify').setLevel(logging.ERROR)
  plain = [text for text in references if latex.plain_number(text) is not None]
  assert len(plain) > 1500
  for text in plain:
    (theirs,) = math_verify.parse(
      f'${text}$', fallback_mode='no_fallback', extraction_mode='first_match', parsing_timeout=None
    )
    ours = sympy.Rational(*latex.plain_number(text).as_integer_ratio())
    # Theirs may be a binary fraction, which agrees to 15 digits.
    exact = sympy.Rational(str(theirs)) if theirs.has(sympy.Float) else theirs
    assert exact == ours, text


@pytest.mark.slow
def test_the_quick_strategy_finds_the_trees_of_the_full_one(references):
  def read(reader, text):
    normal = latex.parser.normalize_latex(text, latex._NORMAL)
    try:
      return sympy.srepr(reader(is_real=True, config=latex._KEEP_CASE).parse(normal))
    except Exception:
      return None

  sample = [text for text in references if latex.plain_number(text) is None][::4]
  num_quick = 0
  for text in sample:
    quick = read(latex._QuickReader, text)
    if quick is not None:
      num_quick += 1
      assert quick == read(latex._Reader, text), text
  assert num_quick > 0.9 * len(sample)
