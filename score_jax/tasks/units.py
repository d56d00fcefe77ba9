r"""What an answer says in words: units, times of day, names, and words that change a number.

The parser of equality.py drops or multiplies them, so they are compared here, as text.
"""

import re

_TEXT = r'\\(?:text(?:rm|bf|it|normal)?|mbox|mathrm)\s*\{([^{}\\$]*)\}'
_ONLY_TEXT = re.compile(rf'\(?{_TEXT}\)?,?')
_UNIT = re.compile(rf'(?:\\[,;:! ]|[\s~])*{_TEXT}\s*(?:\^\s*\{{?([0-9])\}}?)?[.\s]*$')
_WRAPPING = re.compile(r'\\(?:text(?:rm|bf|it|normal)?|mbox|mathrm)\b|\\[!,;: ]|[\s(){}.~$]')
# Words that change what a number says; they are never dropped.
_VALUE_WORDS = frozenset(
  (
    'hundred thousand million billion trillion dozen half halves third thirds quarter quarters '
    'not no or and to than least most minus negative plus times more less over by am pm noon'
  ).split()
)
# Each unit of measure and how else it is written. Other nouns (ways, students) are all one.
_MEASURES = {
  name: line.split()[0]
  for line in (
    'inch inches in',
    'foot feet ft',
    'yard yards yd',
    'mile miles mi',
    'mm millimeter millimeters',
    'cm centimeter centimeters',
    'm meter meters metre metres',
    'km kilometer kilometers',
    'ounce ounces oz',
    'pound pounds lb lbs',
    'gram grams g gm',
    'kg kilogram kilograms',
    'second seconds sec s',
    'minute minutes min',
    'hour hours hr h',
    'day days',
    'week weeks',
    'month months',
    'year years yr',
    'dollar dollars usd',
    'cent cents',
    'euro euros',
    'degree degrees deg',
    'radian radians rad',
    'fahrenheit f',
    'celsius c',
    'gallon gallons gal',
    'liter liters l',
    'acre acres',
    'mph',
    'unit units',
    'square sq 2',
    'cubic cu 3',
  )
  for name in line.split()
}


def is_words(latex: str) -> bool:
  r"""Whether an answer is a text, such as `\text{even}`, and not `\text{13}`."""
  match = _ONLY_TEXT.fullmatch(latex)
  return match is not None and any(char.isalpha() for char in match.group(1))


def words(latex: str) -> list[str]:
  """An answer as words to compare; a list of single letters in any order."""
  found = [word for word in _WRAPPING.sub('', latex).casefold().split(',') if word]
  return sorted(found) if all(len(word) == 1 for word in found) else found


def split_unit(latex: str) -> tuple[str, list[str], list[str]]:
  r"""(what stands before a text at the end, words that change its value, units of measure).

  A power belongs to the unit: `5 \text{ cm}^2` is ('5', [], ['cm', '2']).
  """
  match = _UNIT.search(latex)
  if match is None or not latex[: match.start()].strip(' ('):
    head, words = latex, []
  else:
    head = latex[: match.start()].strip()
    words = re.findall(r'[a-z]+', match.group(1).lower().replace('.', ''))
    if words == ['percent']:
      return head + r'\%', [], []
    words += [match.group(2)] if match.group(2) else []
  measures = [_MEASURES[word] for word in words if word in _MEASURES]
  if words and not measures:
    measures.append('some noun')
  if head.startswith(r'\$'):
    measures.append('dollar')
  if head.endswith('%'):
    measures.append('percent')
  if head.endswith((r'^\circ', r'^{\circ}')):
    measures.append('degree')
  return head, [word for word in words if word in _VALUE_WORDS], sorted(set(measures))
