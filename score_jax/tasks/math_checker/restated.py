r"""Right answers that restate a formula of the question. Runs inside a worker process.

`Compute $\dbinom{31}{28}$` is not answered by `\dbinom{31}{28}`, equal as it is to the reference,
and a policy would learn to copy. So a right answer gets nothing where what it says is

1. a part of the question, whatever it looks like (spaces, braces, `\dfrac`, `a/b`, `\times`);
2. a formula of the question, or a side of one, with its terms or factors in another order;
3. a formula of the question that is right by itself, and more that changes nothing (`+0`), or
   with other signs, brackets and ones in it (`84 \cdot \frac{1}{144}`, `\frac{-84}{-144}`).

It stays right where it is an integer or a decimal number, one letter or constant, or the
reference's text but for its looks: where one of several is to be chosen, the question holds it.
Answers that are wrong are not looked at, so the rule can only take rewards away.
"""

import functools
import re
from collections.abc import Iterator

from score_jax.tasks.math_checker import answers, equality, units

_FORMULA = re.compile(
  r'\$\$(.+?)\$\$|(?<!\\)\$(.+?)(?<!\\)\$|(?<!\\)\\\[(.+?)(?<!\\)\\\]|(?<!\\)\\\((.+?)(?<!\\)\\\)',
  re.DOTALL,
)
# A word of prose. Letters beside an operator may be a product, as in `ab + 5b`.
_WORD = re.compile(
  r'(?<![\\A-Za-z])(?:[A-Za-z]{4,}|(?<![-+*/^=<>(] )[A-Za-z]{2,}(?! ?[-+*/^=<>(]))(?![A-Za-z0-9])'
)
_HAS_OPERATION = re.compile(r'[-+*/^=<>!|\\%]|[0-9A-Za-z)]\(|[0-9] ?: ?[0-9]')
_SIDES = re.compile(
  r'=|,|;|&|[<>]|\\\\|\\(?:[lg]e|[lg]eq|[lg]eqslant|neq?|equiv|approx|in|q?quad)(?![A-Za-z])'
)
_TOKEN = re.compile(r'\\[A-Za-z]+|\\.|[0-9]*\.?[0-9]+|\S', re.DOTALL)
_THOUSANDS = re.compile(r'(?<=[0-9])(?:,\\!\s?|\{,\}|\\,|,)(?=[0-9]{3}(?![0-9]))')
# As in TeX, `\frac123` is `\frac{1}{2}3`.
_BARE_FIRST = re.compile(r'(\\[dtc]?frac|\\[dt]?binom|\\sqrt|\\log\s*_)\s*([0-9])')
_BARE_SECOND = re.compile(r'(\\(?:[dtc]?frac|[dt]?binom)\{[0-9]\})\s*([0-9])')
_MATRIX = re.compile(r'(?<=\{)(?:[pb]|small)(?=matrix\})')
_LAYOUT = re.compile(r'\\(?:begin|end)\{(?:align|equation|gather|multline|split)[a-z]*\*?\}')
_SYMBOLS = str.maketrans(
  dict(zip('−–×·⋅∙÷', '--****/', strict=True))
  | {'²': '^2', '³': '^3', 'π': r'\pi ', '≤': r'\le ', '≥': r'\ge ', '°': r'^\circ '}
)
_ROOT = re.compile(r'√\s?([0-9]+|.)')
_ALIKE = {
  alike: line.split()[0]
  for line in (
    r'\frac \dfrac \tfrac \cfrac',
    r'\binom \dbinom \tbinom',
    r'/ \div',
    r'\le \leq \leqslant',
    r'\ge \geq \geqslant',
    r'\ne \neq',
    r'| \vert \lvert \rvert \mid',
    r'... \dots \ldots \cdots',
    r'% \%',
  )
  for alike in line.split()
}
_UNSEEN = frozenset(
  r'\left \right \middle \big \Big \bigg \Bigg \bigl \bigr \Bigl \Bigr \biggl \biggr \Biggl \Biggr '
  r'\displaystyle \textstyle \limits \nolimits \quad \qquad \, \! \; \: & $ ~ \boxed '
  r'\( \) \[ \] \$ * \cdot \times \ast'.split()
) | {'\\ ', '\\\n'}
_FONTS = frozenset(
  r'\text \textrm \textbf \textit \textnormal \mbox \mathrm \mathbf \mathit \boldsymbol \overline '
  r'\operatorname'.split()
)
_ALONE = re.compile(r'(?<=\s)\( (\S+) \)(?=\s)')
_TWICE = re.compile(r'(?<=\s)\( (\( [^()]* \)) \)(?=\s)')
_DEGREES = re.compile(r'((?:^|= )(?:[-+] )?[0-9.]+) \^ \\circ$')
_IS = frozenset(('=', r'\in', r'\approx'))
_NUMBER = re.compile(r'(?:[-+] ?)?[0-9]*\.?[0-9]+')
_ATOM = re.compile(r'(?:[-+] )?\S*')
_OPENING, _CLOSING = frozenset(('(', '[', r'\{')), frozenset((')', ']', r'\}'))
_ORDER = frozenset('()+')
_IDLE = frozenset('-/:^01')


def grade_final_answer(reference: str, text: str, question: str) -> tuple[float, str]:
  """Grades as `equality.grade_final_answer` does, but for answers that restate the question.

  Args:
    reference: the reference answer, as LaTeX.
    text: all that the model wrote, or its `answers.final_part`.
    question: the problem, as the prompt shows it.

  Returns:
    (reward, reason): (0.0, 'restated') for a right answer that is a formula of the question, else
    what `equality.grade_final_answer` says.
  """
  reward, reason = equality.grade_final_answer(reference, text, question)
  if reward and restates(reference, answers.extract_answer(text), question):
    return 0.0, 'restated'
  return reward, reason


def restates(reference: str, answer: str, question: str) -> bool:
  r"""Whether an answer that equals the reference only says again what the question says.

  Args:
    reference: the reference answer, as LaTeX.
    answer: one that is right, as LaTeX.
    question: the problem; its formulas stand in dollars, in `\[ \]`, or as plain text.

  Example:
    >>> restates('4495', r'x = \binom{31}{28}', r'Compute $\dbinom{31}{28}$.')
    True
    >>> restates(r'\sqrt{2}', r'\sqrt2', r'Which is larger, $1$ or $\sqrt{2}$?')
    False
  """
  reference, answer = answers.clean(reference), answers.clean(answer)
  # Short cuts for what most right answers are; words are compared as text.
  if answer == reference or _NUMBER.fullmatch(answer) or units.is_words(reference):
    return False
  whole, *_, value = _sides(_bare(reference))
  wanted = {side.removesuffix(' %') for side in (whole, value, *_parts(value))}
  sides = _sides(_bare(answer))
  if any(_NUMBER.fullmatch(side) or side.removesuffix(' %') in wanted for side in sides):
    return False
  value = sides[-1]
  parts = [_sides(part)[-1] for part in _parts(value)]
  is_done = [bool(_ATOM.fullmatch(part)) or part in wanted for part in parts]
  if all(is_done):
    return False
  asked = _asked(question)
  # Two sides of an answer that is an equation may be one of the question.
  if any(f' {side} ' in asked for side in (sides[0], value)) or all(
    done or f' {part} ' in asked for part, done in zip(parts, is_done, strict=True)
  ):
    return True
  bags, kernels = {_bag(side) for side in wanted}, {_kernel(side) for side in wanted}
  for formula in _formulas(question):
    for side in {formula, *_SIDES.split(formula)}:
      looks = _looks(side).strip(' .,:;?')
      if _ATOM.fullmatch(looks) or looks in wanted:
        continue
      if _bag(looks) in (_bag(value), _bag(sides[0])) and _bag(looks) not in bags:
        return True
      kernel = _kernel(looks)
      is_respelt = kernel and kernel == _kernel(value) and kernel not in kernels
      if (is_respelt or f' {looks} ' in f' {value} ') and equality.is_equal(reference, side):
        return True
  return False


def _formulas(question: str) -> Iterator[str]:
  """The formulas of a question as they stand there, and what of its prose may be one."""
  question, end = _ascii(question), 0
  for match in _FORMULA.finditer(question):
    yield from _in_prose(question[end : match.start()])
    yield match.group(match.lastindex)
    end = match.end()
  yield from _in_prose(question[end:])


def _in_prose(text: str) -> Iterator[str]:
  """What stands between words, if there is something to work out in it."""
  return (part for part in _WORD.split(text) if _HAS_OPERATION.search(part))


@functools.lru_cache(maxsize=256)
def _asked(question: str) -> str:
  """All formulas of a question, by their looks, apart from each other."""
  return f' {" ; ; ".join(map(_looks, _formulas(question)))} '


def _bare(latex: str) -> str:
  """The looks of an answer without its unit; a percent sign stays, for it changes numbers."""
  return _DEGREES.sub(r'\1', _looks(units.split_unit(latex)[0]))


def _sides(looks: str) -> list[str]:
  """All of an answer, then what stands between its equals signs, not those of a sum's limits."""
  sides, depth = [[]], 0
  for token in looks.split(' '):
    depth += (token in _OPENING) - (token in _CLOSING)
    if token in _IS and not depth:
      sides.append([])
    else:
      sides[-1].append(token)
  return [looks, *(_open(' '.join(side)) for side in sides)]


def _open(looks: str) -> str:
  """Without the round brackets around all of it."""
  parts = _parts(looks)
  return looks[2:-2] if looks.startswith('( ') and parts == [looks[2:-2]] else looks


def _parts(looks: str) -> list[str]:
  """The elements of a list, tuple or set; of anything else itself, without brackets around it."""
  depths, depth = [], 0
  tokens = looks.split(' ')
  for token in tokens:
    depth += token in _OPENING
    depths.append(depth)
    depth -= token in _CLOSING
  is_wrapped = len(tokens) > 2 and tokens[0] in _OPENING and 0 not in depths and depth == 0
  parts = [[]]
  for token, level in zip(tokens, depths, strict=True):
    if token == ',' and level == is_wrapped:
      parts.append([])
    else:
      parts[-1].append(token)
  if is_wrapped:
    del parts[0][0], parts[-1][-1]
  return [' '.join(part) for part in parts]


def _bag(looks: str) -> tuple[str, ...]:
  """What does not change with the order of terms and factors."""
  return tuple(sorted(token for token in looks.split() if token not in _ORDER))


def _kernel(looks: str) -> tuple[str, ...]:
  """What is left of a bag without signs, and without what may change nothing."""
  return tuple(token for token in _bag(looks) if token not in _IDLE)


def _looks(latex: str) -> str:
  r"""LaTeX as tokens with single spaces, the same for all that looks the same.

  Example:
    >>> _looks(r'\left(\dfrac{x+1}{2}\right)') == _looks('((x + 1)/2)')
    True
  """
  latex = _MATRIX.sub('', _LAYOUT.sub(r'\\\\ ', _THOUSANDS.sub('', _ascii(latex))))
  latex = _BARE_SECOND.sub(r'\1{\2}', _BARE_FIRST.sub(r'\1{\2}', latex))
  # From right to left, so that what a command takes lies on top; None is a closing brace.
  stack: list[list[str] | None] = []
  for token in reversed(_TOKEN.findall(latex)):
    token = _ALIKE.get(token, token)
    if token == '}':
      stack.append(None)
    elif token == '{':
      stack.append(_group(stack))
    elif token in _FONTS:
      group = _take(stack)
      stack.append(group[1:-1] if group[:1] == ['('] else group)
    elif token in (r'\frac', r'\binom'):
      stack.append(_pair(token, _take(stack), _take(stack)))
    elif token not in _UNSEEN:
      stack.append([_number(token) if token[-1:].isdigit() else token])
  looks = ' '.join(token for unit in reversed(stack) for token in unit or ())
  return _ALONE.sub(r'\1', _ALONE.sub(r'\1', _TWICE.sub(r'\1', f' {looks} '))).strip()


def _number(digits: str) -> str:
  """A number without zeros that say nothing: `084.0` and `.50` as `84` and `0.5`."""
  whole, _, decimals = digits.partition('.')
  decimals = decimals.rstrip('0')
  return (whole.lstrip('0') or '0') + (f'.{decimals}' if decimals else '')


def _ascii(text: str) -> str:
  """A text with LaTeX in place of other characters."""
  return text if text.isascii() else _ROOT.sub(r'\\sqrt{\1}', text.translate(_SYMBOLS))


def _take(stack: list[list[str] | None]) -> list[str]:
  """What a command takes: the token or group behind it; nothing where there is none."""
  return stack.pop() if stack and stack[-1] is not None else []


def _group(stack: list[list[str] | None]) -> list[str]:
  """What stands up to the closing brace, in round brackets if it is more than one token."""
  tokens = []
  while stack and (unit := stack.pop()) is not None:
    tokens += unit
  for name, infix in ((r'\binom', r'\choose'), (r'\frac', r'\over')):
    if infix in tokens:
      place = tokens.index(infix)
      return _pair(name, _bracketed(tokens[:place]), _bracketed(tokens[place + 1 :]))
  return _bracketed(tokens)


def _bracketed(tokens: list[str]) -> list[str]:
  return ['(', *tokens, ')'] if len(tokens) > 1 else tokens


def _pair(name: str, top: list[str], bottom: list[str]) -> list[str]:
  """A fraction, as it is written with a slash, or a binomial."""
  if name == r'\binom':
    return [name, *top, *bottom]
  sign = top[1:2] if top[1:2] == ['-'] and len(top) == 4 else []
  return [*sign, *(top[2:3] if sign else top), '/', *bottom]
