r"""Unicode mathematics as LaTeX: `2½`, `x⁴`, `(−∞, 2] ∪ [5, ∞)`, `∛2`, full-width and bold letters.

What a character is made of is told by Python's `unicodedata`; the table below holds what that does
not know, the commands of relations, operators and brackets. What may be read in two ways (`√2x`,
a dash between two numbers) stays as it is, and is then no answer.
"""

import re
import unicodedata

_COMMANDS = {
  char: command
  for line in r"""
    × \times · \cdot ⋅ \cdot ∙ \cdot ÷ \div ± \pm ∓ \mp ∑ \sum ∏ \prod ∫ \int ∂ \partial ∗ * ∕ /
    ≤ \le ≦ \le ⩽ \le ≥ \ge ≧ \ge ⩾ \ge ≠ \ne ≈ \approx ≡ \equiv ≅ \cong ∼ \sim ∝ \propto ∶ : ∣ |
    ∞ \infty ∅ \emptyset ⌀ \emptyset ∪ \cup ∩ \cap ∈ \in ∉ \notin ∖ \setminus ⊂ \subset ⊆ \subseteq
    ∧ \land ∨ \lor ¬ \neg → \to ⇒ \Rightarrow ⟨ \langle ⟩ \rangle ⌊ \lfloor ⌋ \rfloor ⌈ \lceil
    ⌉ \rceil ∠ \angle △ \triangle ⊥ \perp ∥ \parallel ‖ \| ∆ \Delta ⋯ \cdots … \ldots ℓ \ell
    ′ ' ″ '' ‴ ''' ’ ' − - ‐ - ‑ - ‒ - ﹣ - º ° ˚ ° ∘ \circ 。 . 、 ,
    ℝ \mathbb{R} ℂ \mathbb{C} ℕ \mathbb{N} ℚ \mathbb{Q} ℤ \mathbb{Z} 𝔼 \mathbb{E} ℙ \mathbb{P}
  """.split('\n')
  for char, command in zip(line.split()[::2], line.split()[1::2], strict=True)
}
# Other characters without a shape are dropped.
_COMMANDS |= {'\N{INVISIBLE TIMES}': r'\cdot', '\N{INVISIBLE SEPARATOR}': ','}
# Greek letters that have a command of their own: the other capitals look like Latin ones.
_COMMANDS |= {
  unicodedata.lookup(f'GREEK {size} LETTER {name.upper()}'): '\\' + command
  for size, names in {
    'SMALL': 'alpha beta gamma delta epsilon zeta eta theta iota kappa lamda mu nu xi pi rho sigma '
    'tau upsilon phi chi psi omega',
    'CAPITAL': 'Gamma Delta Theta Lamda Xi Pi Sigma Upsilon Phi Psi Omega',
  }.items()
  for name in names.split()
  for command in [name.replace('amda', 'ambda')]
}
_SHIFTS = {'<super>': '^', '<sub>': '_'}
_SPACE_IN_NUMBER = re.compile('(?<=[0-9])[\N{THIN SPACE}\N{NARROW NO-BREAK SPACE}](?=[0-9]{3})')
_SLASHED = re.compile(
  r'(?<![⁰¹²³⁴-⁹])([⁰¹²³⁴-⁹]+)[⁄/]([₀-₉]+)|(?<![0-9.,√])([0-9]+)⁄([0-9]+)(?![0-9.])'
)
_RAISED_FRACTION = re.compile(r'\^(\\frac\{[0-9]+\}\{[0-9]+\})')
_ONE_OVER = re.compile('⅟([0-9]+)')
_RING_OF_DEGREE = re.compile('(?<=[0-9])∘')
# Between two numbers it is a range, elsewhere a minus sign.
_EN_DASH = re.compile('([0-9] *– *(?=[0-9]))|– ?')
# What a root sign without brackets covers: a number, a fraction or one letter, and nothing that
# could be meant to stand under the root as well.
_UNDER_ROOT = (
  r'\\frac\{[0-9]+\}\{[0-9]+\}|(?:[0-9]+(?:\.[0-9]+)?|[A-Za-z]|\\pi|\\[a-z]*eta|\\alpha)'
  r'(?!i?[0-9A-Zabc-hj-z({√^_!]|\.[0-9]|,[0-9]|\\(?:pi|[a-z]*eta|alpha|sqrt|frac))'
)
_ROOT = re.compile(
  r'(?:(?<![0-9A-Za-z)}\]])\^\{([2-9]|n)\}(?=√))?([√∛∜]) ?'
  rf'(?:\{{([^{{}}]*)\}}|\(((?:[^()]|\([^()]*\))*)\)(?!\^)|({_UNDER_ROOT}))'
)
_ORDERS = {'√': '', '∛': '3', '∜': '4'}


def as_latex(text: str) -> str:
  r"""A text with LaTeX in place of the characters that Unicode has for mathematics.

  Example:
    >>> as_latex('2½'), as_latex('x⁻¹⁰ ≤ aₙ'), as_latex('(−∞, √2]')
    ('2\\frac{1}{2}', 'x^{-10} \\le a_{n}', '(-\\infty, \\sqrt{2}]')
  """
  if text.isascii():
    return text
  text = _SPACE_IN_NUMBER.sub(r'\\,', text)
  text = _ONE_OVER.sub(r'1⁄\1', _SLASHED.sub(_fraction, text))
  text = _SLASHED.sub(_fraction, text).replace('⁄', '/')
  text = _RING_OF_DEGREE.sub('°', text)
  written, shift, latex = [], '', ''
  for char in text:
    before, command, (shift, latex) = shift, latex[:1] == '\\' != latex, _in_latex(char)
    if shift and shift == before:
      written[-1:] = [latex, '}']
    elif shift:
      written += [f'{shift}{{', latex, '}']
    else:
      # A command ends where no letter follows.
      written.append(f' {latex}' if command and latex[:1].isalpha() else latex)
  latex = _RAISED_FRACTION.sub(r'^{\1}', ''.join(written))
  return _ROOT.sub(_root, _EN_DASH.sub(lambda match: match[1] or '-', latex))


def _in_latex(char: str) -> tuple[str, str]:
  """('^' or '_' for a raised or lowered character, else '', what it is in LaTeX)."""
  if char.isascii():
    return '', char
  if char in _COMMANDS:
    return '', _COMMANDS[char]
  if char.isdecimal():
    return '', str(unicodedata.decimal(char))
  if unicodedata.category(char) == 'Cf':
    return '', ''
  kind, *codes = unicodedata.decomposition(char).split() or ['']
  parts = [_in_latex(chr(int(code, 16)))[1] for code in codes]
  if kind == '<fraction>':
    top, _, bottom = ''.join(chr(int(code, 16)) for code in codes).partition('⁄')
    return '', rf'\frac{{{top}}}{{{bottom}}}'
  # Not what is drawn in a circle or a square, nor letters with accents.
  is_dressed = kind.startswith('<') and kind not in ('<circle>', '<square>')
  return (_SHIFTS.get(kind, ''), ''.join(parts)) if is_dressed else ('', char)


def _fraction(match: re.Match) -> str:
  top, bottom = (unicodedata.normalize('NFKC', part) for part in match.groups() if part)
  return rf'\frac{{{top}}}{{{bottom}}}'


def _root(match: re.Match) -> str:
  raised, sign, *parts = match.groups()
  order = _ORDERS[sign] or raised
  inside = next(part for part in parts if part is not None)
  return r'\sqrt' + (f'[{order}]' if order else '') + f'{{{inside}}}'
