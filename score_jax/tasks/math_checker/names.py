r"""What stands on the left of `=` in an answer: the name of a quantity, or something said about it.

`I = 5`, `f'(2) = 5`, `|AB| = 5`, `P(A|B) = 5`, `\frac{AB}{CD} = 5` name a quantity, and the value
may stand for the whole. `|x| = 5`, `2x = 5`, `x + y = 5`, `\sin x = 5` do not: they are not 5.
The parser reads single letters, `f(2)`, `AB`, `\angle ABC` as names (relations.is_name); the others
are recognised here, as text, and become letters that it reads.
"""

import re
import string
import zlib

from score_jax.tasks.math_checker import latex, units

_SUB = r'(?:_(?:[A-Za-z0-9]|\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}))'
_POINTS = rf"(?:[A-Z]{_SUB}?'*)"
_AREA = (
  rf'(?:\[(?:\\triangle)?{_POINTS}{{3,}}\]|\|?\\triangle{_POINTS}{{3}}\|?|\|{_POINTS}{{3,}}\|)'
)
_SEGMENT = rf'(?:{_POINTS}{{2}}|\\overline\{{{_POINTS}{{2}}\}}|\|{_POINTS}{{2}}\|)'
_MEASURED = rf'(?:{_SEGMENT}|{_AREA})'
_ANGLE = rf"\\angle ?(?:[0-9]|(?=.*['_]){_POINTS}{{1,3}})"
_SET = r'(?:[A-Z](?:\^c)?)'
_VECTOR = r'\\(?:mathbf|boldsymbol|vec|overrightarrow)(?![a-zA-Z])'
_EVENT = r'(?:[^()]|\([^()]*\))*'
_LETTER = r'(?:[A-Za-z]|\\(?!frac|sqrt)[a-zA-Z]+|\\math[a-z]+\{[A-Za-z]\})'
# Ways to write the same name.
_SPELLINGS = [
  (re.compile(r'\\(?:mid|[lr]?vert)(?![a-zA-Z])'), '|'),
  (re.compile(r'\\[lr]?Vert(?![a-zA-Z])'), r'\|'),
  (re.compile(r'\\[dtc]frac'), r'\\frac'),
  (
    re.compile(r'\\[!,;: ]|\\left(?![a-z])|\\right(?![a-z])|\\q?quad(?![a-z])|[~\s]'),
    '',
  ),
  (re.compile(r'\^\{?\\prime\}?'), "'"),
  (re.compile(r'_\{([A-Za-z0-9])\}'), r'_\1'),
  (re.compile(rf'^(?:\|({_POINTS}{{2}})\||\\overline\{{({_POINTS}{{2}})\}})$'), r'\1\2'),
  (re.compile(r'^m?\\(?:measured)?angle(?:\{(.*)\})?(?=$|[A-Z0-9])'), r'\\angle \1'),
]
# No letter to the parser. It takes those of the first line for constants or bases.
_QUANTITY = re.compile(
  '|'.join(
    (
      rf'(?:[eiI]|\\pi){_SUB}?|[A-F]{_SUB}|[A-Za-z]_\{{\\(?:max|min)\}}',
      rf"[A-Za-z]{_SUB}?'+{_SUB}?|(?=.*['_]){_POINTS}{{2,}}",
      rf'{_MEASURED}/{_MEASURED}|\\frac\{{{_MEASURED}\}}\{{{_MEASURED}\}}',
      rf'(?:[A-Za-z]|{_MEASURED})(?::(?:[A-Za-z]|{_MEASURED}))+',
      rf'{_AREA}|{_ANGLE}|\\wide(?:hat|arc)\{{{_POINTS}{{2,3}}\}}',
      rf'\\(?:sin|cos|tan|cot|sec|csc)[({{]?(?:{_ANGLE}|(?:\\angle)?[A-Z]{{1,3}})[)}}]?',
      rf'\\\|[^|]*\\\||\|(?=[^|]*{_VECTOR})[^|]*\|',
      rf'\|{_SET}(?:\\(?:cap|cup|setminus){_SET})+\||n\({_SET}(?:\\(?:cap|cup|setminus){_SET})*\)',
      # Functions of anything, probabilities, means, and what is known by its name.
      rf"(?:[fghFGH]{_SUB}?(?:'+|\^\{{(?:-1|\([0-9n]\))\}})?|\([fgh](?:\\circ|[+-])?[fgh]\))\({_EVENT}\)",
      rf'(?:[Pp]|\\Pr|\\mathbb\{{P\}})\((?=.*[A-Z|]|\\text){_EVENT}\)',
      r'(?:E|\\mathbb\{E\})(?:\((?=.*[A-Z])[^a-z()]*\)|\[(?=.*[A-Z])[^a-z\[\]]*\])',
      r'(?:\\(?:operatorname|text|mathrm)\{)(?:Var|Cov|Area|area|rank|dim|tr|lcm|gcd|deg|dist)\}'
      rf'\({_EVENT}\)',
      r'\\gcd\([0-9,]+\)|\\(?:det|dim|deg)(?:[A-Za-z]|\([A-Za-z]\))',
      rf'\\text\{{[^{{}}]+\}}(?:\\triangle)?{_POINTS}*',
      r'\\frac\{d[a-z]\}\{d[a-z]\}',
    )
  )
)
_TEXT = re.compile(r'\\text\{[^{}]*')
_WORDS = re.compile(r'[A-Z][a-z]{2,}(?: [a-z]+)*')
_PLAINER = re.compile(r'[A-Z]{2}|\\angle [A-Z]{1,3}')
# What the parser reads as a name.
_READ = re.compile(
  rf'{_LETTER}{_SUB}?|[A-Z]{{2,}}|[a-zA-Z]\([^()]*\)|\\angle [A-Z]{{1,3}}'
  r'|\\(?:text|mathrm|overline|vec|hat|bar)\{[^{}]*\}'
)
_POINT = re.compile(r'\(([^()=]*)\)\s*=\s*\((.*)\)')
_POINT_NAME = re.compile(r'\s*\((?:x, ?y(?:, ?z)?|a, ?b(?:, ?c)?|m, ?n|p, ?q|r, ?s)\)\s*=')
_EQUALS = re.compile(r'(?<![<>!:\\])=')
# Between the elements of a list; the comma of 1,000 does not end one.
_GAP = r'(?:[\s,;~]|\\[ ,;:!]|\\q?quad(?![a-z]))*'
_SYMBOLS_BETWEEN = r'\\(?:lor|land|vee|wedge)(?![a-z])'
_WORD_BETWEEN = (
  rf'{_GAP}(?:\\(?:text[a-z]*|mbox|mathrm)\{{(?:[\s,]|\\ )*(?:and|or)(?:\s|\\ )*\}}'
  rf'|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|{_SYMBOLS_BETWEEN}){_GAP}'
)
_BETWEEN = re.compile(rf'{_WORD_BETWEEN}|;|,(?!\\!|(?<=[0-9],)[0-9]{{3}}(?![0-9]))')
_CONNECTIVE = re.compile('and|or|vee|wedge')
_SYMBOL_BETWEEN = re.compile(_SYMBOLS_BETWEEN)


def with_commas(answer: str) -> str:
  r"""A list with commas for the words between its elements; `1 \lor 2` is no list.

  Example:
    >>> with_commas(r'21, 16, \text{ or } 11'), with_commas('x = 1 or x = 2')
    ('21, 16, 11', 'x = 1, x = 2')
  """
  if not _CONNECTIVE.search(answer) or ('=' not in answer and _SYMBOL_BETWEEN.search(answer)):
    return answer
  elements = _elements(answer)
  if not all(element.strip() for element, _ in elements):
    return answer
  return ''.join(
    element + (', ' if _CONNECTIVE.search(between) else between) for element, between in elements
  )


def as_letters(answer: str) -> str:
  r"""An answer with a letter in place of each name that the parser takes for something else.

  The same name is the same letter: a Q with a number for its index.

  Example:
    >>> as_letters("f'(2) = 5") == as_letters(r"f'\left(2\right) = 5"), as_letters('|AB|=5')
    (True, 'AB=5')
    >>> as_letters('|x| = 5')
    '|x| = 5'
  """
  if '=' not in answer:
    return answer
  parts, elements = [], _elements(answer)
  for element, between in elements:
    if len(elements) > 1 and _POINT_NAME.match(element):
      # Of several points each or the first may have the name.
      parts += [element.partition('=')[2], between]
      continue
    places = _places(_EQUALS, element)
    if places:
      start, end = places[0]
      name, value = element[:start], element[end:]
      if len(places) == 1 and latex.plain_number(name.strip()) and _letter(value) != value:
        name, value = value, name
      letter = _letter(name)
      element = element if letter == name else f'{letter}={value}'
    parts += [element, between]
  return ''.join(parts)


def paired(reference: str, answer: str) -> list[tuple[str, str]] | None:
  """The values to compare where one of two answers lists several names with their values.

  By name where both do. Else in the order in which they stand, so no set can be the other answer;
  a point (x,y) has the order of its letters.

  Args:
    reference: what is right.
    answer: the model's.

  Returns:
    Pairs that must all be equal, None where neither lists different names. A pair of nothing with
    something stands for answers that cannot be the same.
  """
  if '=' not in reference + answer:
    return None
  wanted, found = _values(reference), _values(answer)
  if wanted is None and found is None:
    return None
  unequal = [('', '')]
  if wanted is not None and found is not None:
    same = wanted.keys() == found.keys()
    return [(wanted[name], found[name]) for name in wanted] if same else unequal
  named, bare = (wanted, answer) if found is None else (found, reference)
  bare = bare.replace(r'\left(', '(').replace(r'\right)', ')')
  is_point = bare.startswith('(') and bare.endswith(')') and len(_elements(bare)) == 1
  if bare.startswith((r'\{', r'\left\{')):
    return unequal
  parts = _elements(bare[1:-1] if is_point else bare)
  elements = [element for element, _ in parts]
  if len(elements) < 2 or any('=' in element for element in elements):
    return None
  if len(named) != len(elements) or '' in named or any('or' in between for _, between in parts):
    return unequal
  order = list(named)
  if found is not None and not is_point and len({name[0] for name in order}) == 1:
    # Several x, which are told apart by an index alone, are the solutions of one equation.
    return None
  if is_point and ''.join(sorted(order)) in string.ascii_letters:
    order.sort()
  pairs = zip([named[name] for name in order], elements, strict=True)
  return [pair if found is None else pair[::-1] for pair in pairs]


def _values(answer: str) -> dict[str, str] | None:
  """The values of `x = 1, y = 2` by their names, with '' for "or"; None for anything else."""
  elements = _elements(answer)
  point = _POINT.fullmatch(answer) if len(elements) == 1 else None
  if point:
    letters, values = map(_elements, point.groups())
    if len(letters) != len(values):
      return None
    pairs = zip(letters, values, strict=True)
    elements = [(f'{letter}={value}', '') for (letter, _), (value, _) in pairs]
  values = {}
  for element, between in elements:
    places = _places(_EQUALS, element)
    if len(places) != 1:
      return None
    start, end = places[0]
    name = _spelt(element[:start])
    if not (_READ.fullmatch(name) or _QUANTITY.fullmatch(name)):
      return None
    values[name] = element[end:].strip()
    if 'or' in between or 'vee' in between:
      values[''] = ''
  return values if len(values) >= 2 and len(values.keys() - {''}) == len(elements) else None


def _elements(text: str) -> list[tuple[str, str]]:
  """The elements of a list, each with what stands between it and the next one."""
  found, start = [], 0
  for end, after in _places(_BETWEEN, text):
    found.append((text[start:end], text[end:after]))
    start = after
  return [*found, (text[start:], '')]


def _places(pattern: re.Pattern, text: str) -> list[tuple[int, int]]:
  """Where a pattern matches outside of all brackets."""
  depths, depth = [], 0
  for char in text:
    depth -= char in ')]}'
    depths.append(depth)
    depth += char in '([{'
  return [match.span() for match in pattern.finditer(text) if not depths[match.start()]]


def _letter(side: str) -> str:
  """A side of an equation, or a letter for it."""
  name = _spelt(side)
  words = _WORDS.fullmatch(side.strip()) or _TEXT.match(side)
  # Half of AB is no name.
  is_name = units.says_nothing(words[0].partition('{')[2] or words[0]) if words else True
  if is_name and (_WORDS.fullmatch(side.strip()) or _QUANTITY.fullmatch(name)):
    return f'Q_{{{zlib.crc32(name.encode())}}}'
  return name if _PLAINER.fullmatch(name) else side


def _spelt(name: str) -> str:
  """A name in one spelling."""
  for pattern, spelling in _SPELLINGS:
    name = pattern.sub(spelling, name)
  return name
