"""MATH: which answers are one answer in two forms, and which are not."""

import logging

import math_verify
import pytest
from makers import TESTS

from score_jax.tasks.math_checker import equality

EQUAL = [
  (r'\frac{1}{2}', '1/2'),
  (r'\frac{1}{2}', '0.5'),
  (r'\frac{1}{2}', r'\dfrac12'),
  (r'\frac{1}{2}', r'\frac{2}{4}'),
  (r'-\frac{1}{2}', r'\frac{-1}{2}'),
  (r'1\frac{4}{5}', r'\frac{9}{5}'),
  (r'137 \frac{1}{2}', '137.5'),
  (r'\frac43', r'\frac{4}{3}'),
  ('50', r'50\%'),
  (r'50\%', '50'),
  ('90^\\circ', '90'),
  ('90^\\circ', r'90 \text{ degrees}'),
  ('10,\\!080', '10080'),
  ('10,\\!080', '10,080'),
  ('58,500', '58500'),
  ('1000', '1{,}000'),
  ('11,\\! 111,\\! 111,\\! 100', '11111111100'),
  ('1,-2', '-2, 1'),
  ('1,-2', '\\{1,-2\\}'),
  ('(3,4]', r'\left( 3, 4 \right]'),
  ('(2,\\infty)', 'x>2'),
  ('x<5', '5>x'),
  ('(0,9) \\cup (9,36)', '(9,36)\\cup(0,9)'),
  ('x \\in [-2,7]', '[-2,7]'),
  (r'\begin{pmatrix} -2 \\ 1/3 \end{pmatrix}', r'\begin{bmatrix}-2\\\frac13\end{bmatrix}'),
  (r'\text{Evelyn}', 'Evelyn'),
  (r'\text{Evelyn}', r'\textbf{Evelyn}'),
  (r'\text{even}', 'even'),
  (r'\text{(C)}', 'C'),
  (r'\text{(C)}', r'\textbf{(C)}'),
  ('p - q', '-q+p'),
  ('2k+2', '2(k+1)'),
  ('x=5', '5'),
  ('5', 'x=5'),
  ('y = 2x + 3', 'y-2x=3'),
  ('5x - 7y + 11z + 4 = 0', '10x - 14y + 22z + 8 = 0'),
  ('1 \\pm \\sqrt{19}', '1-\\sqrt{19}, 1+\\sqrt{19}'),
  ('52_8', '52_{8}'),
  ('5', '5_{10}'),
  ('\\$32,\\!348', '\\$32,348'),
  ('\\$18.90', '18.9'),
  ('864 \\mbox{ inches}^2', '864'),
  ('5', '$5$ cm'),
  ('6 - 5i', '-5i+6'),
  ('3\\sqrt{13}', '\\sqrt{117}'),
  ('\\cot x', '\\frac{\\cos x}{\\sin x}'),
  ('.0000672', '6.72 \\times 10^{-5}'),
  ('.35625', '0.35625'),
  ('05\\!:\\!00', '05:00'),
  ('5r^5', '5r^{5}'),
]


DIFFERENT = [
  (r'\frac{1}{2}', r'\frac{1}{3}'),
  (r'\frac{1}{3}', '0.33'),
  (r'\frac{1}{3}', '0.3333333333'),
  (r'-\frac12', r'\frac12'),
  (r'1\frac{4}{5}', r'\frac{4}{5}'),
  ('3\\frac{1}{2}', '\\frac{3}{2}'),
  ('5', '50'),
  ('15', '0.15'),
  ('90^\\circ', '60'),
  ('58500', '58'),
  ('58500', '500'),
  ('1,-2', '1'),
  ('1,-2', '1,2'),
  ('3, 5, 7', '357'),
  ('1,2', '1,2,3'),
  ('1,2', '1.2'),
  ('1,2', '12'),
  ('25', '5 5'),
  ('12', '1 2'),
  ('12', '21'),
  ('12', '-12'),
  ('12', '12x'),
  ('(3,4]', '[3,4]'),
  ('(3,4]', '(3,4)'),
  ('(3,4]', '[3,4)'),
  ('(-2,1)', '(1,-2)'),
  ('(2,\\infty)', '[2,\\infty)'),
  ('(2,\\infty)', '(2,3)'),
  ('(0,9) \\cup (9,36)', '(0,36)'),
  ('x \\in [-2,7]', '(-2,7)'),
  ('x<5', 'x\\le 5'),
  ('x<5', '5'),
  (r'\begin{pmatrix} -2 \\ 1 \end{pmatrix}', r'\begin{pmatrix} -2 & 1 \end{pmatrix}'),
  (r'\begin{pmatrix} -2 \\ 1 \end{pmatrix}', r'\begin{pmatrix} 1 \\ -2 \end{pmatrix}'),
  (r'\text{Evelyn}', r'\text{Eve}'),
  (r'\text{even}', 'odd'),
  (r'\text{even}', 'not even'),
  (r'\text{no}', 'on'),
  (r'\text{(C)}', r'\text{(D)}'),
  (r'\text{(C)}', 'C, D'),
  ('p - q', 'q - p'),
  ('2k+2', '2k'),
  ('2k', '2n'),
  ('2k', '2'),
  ('x=5', 'x=-5'),
  ('5', 'x=6'),
  ('y = 2x + 3', 'y=2x-3'),
  ('1 \\pm \\sqrt{19}', '1+\\sqrt{19}'),
  ('1 \\pm \\sqrt{19}', '1 \\pm \\sqrt{17}'),
  ('\\$36', '-36'),
  ('864 \\mbox{ inches}^2', '864^2'),
  ('6 - 5i', '6+5i'),
  ('\\pi', '3.14159265'),
  ('12\\pi', '12'),
  ('3\\sqrt{13}', '3\\sqrt{12}'),
  ('3.21', '3.2'),
  ('2', '2.0000001'),
  ('2', '1.99999999'),
  ('0', ''),
  ('120', 'n!'),
  ('(6,31,-1)', '(31,6,-1)'),
  ('2:3', '3:2'),
  ('0', '\\frac{1}{0}'),
  ('-1', '\\frac{1}{0}'),
  # Hedging.
  ('2', '2 or 3'),
  ('2', '2 \\text{ or } 3'),
  ('2', 'x=2 or x=3'),
  ('2', '2, 3'),
  ('2', r'\boxed{2} or \boxed{3}'),
  ('8', '8 \\pm 1'),
  ('2', '2 \\neq 3'),
  # Called equal by math-verify's defaults: see the head of equality.py.
  ('.0000672', '0.000067'),
  ('0', '0.0000001'),
  ('52_8', '52_9'),
  ('52_8', '52'),
  ('4210_{5}', '4210'),
  ('5t', '5'),
  ('2m', '2'),
  ('3ab', '3'),
  ('4h', '4s'),
  ('5', 'not 5'),
  ('5', r'I think 5 \frac'),
  ('11:00', '11:30'),
]


@pytest.mark.parametrize('reference, answer', EQUAL)
def test_equal_answers(reference, answer):
  assert equality.is_equal(reference, answer)


@pytest.mark.parametrize('reference, answer', DIFFERENT)
def test_different_answers(reference, answer):
  assert not equality.is_equal(reference, answer)


def _table():
  """(kind, reference, answer, whether they are the same) of every line of math_pairs.txt."""
  kind = is_same = None
  text = (TESTS / 'math_pairs.txt').read_text(encoding='utf-8')
  for line in text.splitlines():
    if line.startswith('# '):
      kind = line[2:]
    elif line in ('same:', 'different:'):
      is_same = line == 'same:'
    elif line.startswith('  '):
      reference, answer = line.strip().split(' | ')
      yield kind, reference, answer, is_same


TABLE = list(_table())


def test_the_table_is_large_and_not_one_sided():
  assert len(set(TABLE)) == len(TABLE) >= 500
  assert len({kind for kind, *_ in TABLE}) >= 25
  assert 0.3 < sum(is_same for *_, is_same in TABLE) / len(TABLE) < 0.65


@pytest.mark.parametrize('kind', sorted({kind for kind, *_ in TABLE}))
def test_the_table_of_pairs_judged_by_hand(kind):
  wrong = [
    (reference, answer, is_same)
    for row_kind, reference, answer, is_same in TABLE
    if row_kind == kind and equality.is_equal(reference, answer) != is_same
  ]
  assert wrong == []


def test_the_table_can_fail():
  # math-verify's defaults call many of the different ones the same.
  logging.getLogger('math_verify').setLevel(logging.ERROR)
  tricked = sum(
    math_verify.verify(
      math_verify.parse(f'${reference}$', parsing_timeout=None),
      math_verify.parse(f'${answer}$', parsing_timeout=None),
      timeout_seconds=None,
    )
    for kind, reference, answer, is_same in TABLE
    if kind in ('units', 'bases', 'decimals', 'times of day') and not is_same
  )
  assert tricked >= 10
