"""Unicode mathematics as LaTeX; tests/math_pairs.txt holds more, as answers."""

import unicodedata

import pytest

from score_jax.tasks.math_checker import characters


@pytest.mark.parametrize(
  'text, latex',
  [
    ('¾', r'\frac{3}{4}'),
    ('2⅓', r'2\frac{1}{3}'),
    ('2³⁄₄', r'2\frac{3}{4}'),
    ('1⁄12', r'\frac{1}{12}'),
    ('⅟12', r'\frac{1}{12}'),
    ('π⁄6', r'\pi/6'),
    ('x⁻¹⁰', 'x^{-10}'),
    ('x₁²', 'x_{1}^{2}'),
    ('2ⁿ⁺¹', '2^{n+1}'),
    ('√2 + ∛(x+1)', r'\sqrt{2} + \sqrt[3]{x+1}'),
    ('³√2', r'\sqrt[3]{2}'),
    ('1 + √3i', r'1 + \sqrt{3}i'),
    ('(−∞, 3] ∪ {5}', r'(-\infty, 3] \cup {5}'),
    ('αx ≤ ℝ', r'\alpha x \le \mathbb{R}'),
    ('x – 1', 'x -1'),
    ('\uff13\uff0b\uff14', '3+4'),
    ('\U0001d465\U0001d7d3', 'x5'),
    ('\u0663', '3'),
    ('2\u200b5\ufeff', '25'),
    ('1\u202f234', r'1\,234'),
    (r'\frac{1}{2}x ≥ f', r'\frac{1}{2}x \ge f'),
    # What may be read in two ways, and what is no mathematics, stays.
    *((text, text) for text in ('√2x', '√1,000', '√4!', '2–3', '2 – 3', '⑫', 'é', '5‰')),
  ],
)
def test_characters_become_latex(text, latex):
  assert characters.as_latex(text) == latex


def test_every_power_index_and_fraction_that_unicode_has():
  kinds = dict.fromkeys(('<super>', '<sub>', '<fraction>'), 0)
  for code in range(0x80, 0x2E80):
    kind, *parts = unicodedata.decomposition(chr(code)).split() or ['']
    if kind not in kinds or chr(code) in 'º⅟':
      continue
    kinds[kind] += 1
    plain = unicodedata.normalize('NFKC', chr(code)).replace('\N{MINUS SIGN}', '-')
    latex = characters.as_latex('x' + chr(code))
    if kind == '<fraction>':
      top, bottom = plain.split('⁄')
      assert latex == rf'x\frac{{{top}}}{{{bottom}}}'
    elif plain.isascii():
      assert latex == f'x{"^" if kind == "<super>" else "_"}{{{plain}}}'
  assert kinds['<super>'] > 80 and kinds['<sub>'] > 30 and kinds['<fraction>'] == 18 + 1


def test_plain_text_is_left_alone():
  text = ''.join(map(chr, range(128)))
  assert characters.as_latex(text) is text
