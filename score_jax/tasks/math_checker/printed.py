r"""LaTeX as it stands on the page, for a parser that reads what it finds in the text.

Braces print nothing: `{5}{7}` is 57 there, and `{2+3}\cdot 7` is 2 + 3·7. The parser groups by
them, reads an unknown command as a known one and some letters (`\pmod` as `\pm od`), and drops or
reads what is hidden (`\phantom{7}`).
"""

import re

# How many groups in braces a command takes; the spacing before and the option of a root aside.
_ARGUMENTS = {
  command: number
  for number, commands in (
    (2, 'frac dfrac tfrac cfrac binom dbinom tbinom'),
    (
      1,
      'sqrt text textrm textbf textit textnormal mbox mathrm mathbf mathit mathbb mathcal '
      'boldsymbol mathfrak mathsf mathtt mathscr operatorname overline bar vec overrightarrow '
      'hat widehat tilde widetilde log ln exp sin cos tan cot sec csc arcsin arccos arctan '
      'arccot arcsec arccsc sinh cosh tanh arsinh arcosh artanh arcsinh arccosh arctanh gcd lcm '
      'max min det floor ceil',
    ),
    (
      0,
      'alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu '
      'nu xi pi rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi '
      'Sigma Upsilon Phi Psi Omega infty partial ell hbar Re Im angle triangle square circ '
      'degree times cdot div mod choose pm mp lt gt le leq leqslant ge geq geqslant ne neq '
      'approx equiv in notin cup cap setminus backslash subset subseteq supset supseteq '
      'emptyset varnothing lim to rightarrow Rightarrow int sum prod limits left right mleft '
      'mright lfloor rfloor lceil rceil lvert rvert vert mid lbrace rbrace lbrack rbrack langle '
      'rangle lgroup rgroup begin end displaystyle quad qquad thinspace ldots land lor vee '
      'wedge over',
    ),
  )
  for command in commands.split()
}
_TOKEN = re.compile(
  r'\\(?:begin|end)\s*\{[a-z]+\*?\}(?:\s*\{[clr| ]+\})?|\\sqrt\s*\[[^\]]*\]|\\[A-Za-z]+|\\.|.',
  re.DOTALL,
)
_BOXES = (r'\boxed', r'\fbox')
_DIGITS = frozenset('0123456789., {}')
# What splits all of the group around it in two.
_INFIX = (r'\choose', r'\over')


def printed(latex: str) -> str | None:
  r"""LaTeX without the braces of no command, of which a box groups; None if it cannot be read.

  That is: with an unknown command, a brace that has no partner, or a backslash before nothing.

  Example:
    >>> printed(r'{5}\boxed{7}'), printed(r'\frac{1}{2}'), printed(r'\phantom{7}5')
    (' 5   7 ', '\\frac{1}{2}', None)
  """
  if '\\' not in latex and '{' not in latex:
    return latex
  written, opened, takes = [], [], 0
  for token in _TOKEN.findall(latex):
    if token == '{':
      opened.append((len(written), takes))
      written.append('{' if takes else ' ')
      takes = 0
    elif token == '}':
      if not opened:
        return None
      start, taken = opened.pop()
      inside = written[start + 1 :]
      is_box = written[start - 1 : start] == [''] and not _DIGITS.issuperset(inside)
      if is_box or any(infix in inside for infix in _INFIX):
        written[start] = '{'
      written.append('}' if written[start] == '{' else ' ')
      takes = max(taken - 1, 0)
    elif token == '\\':
      return None
    elif token in _BOXES:
      written.append('')
      takes = 0
    else:
      written.append(token)
      if token in '^_' or token.startswith(r'\sqrt'):
        takes = 1
      elif token[0] == '\\' and token[1].isalpha():
        name = re.match('[A-Za-z]+', token[1:])[0]
        if name not in _ARGUMENTS:
          return None
        takes = _ARGUMENTS[name]
      elif not token.isspace():
        takes = max(takes - 1, 0)
  return None if opened else ''.join(written)
