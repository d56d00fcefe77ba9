r"""What an answer says in words: units, times of day, names, and words that change a number.

The parser of equality.py drops or multiplies them, so they are compared here, as text.
"""

import re
from collections.abc import Collection

from score_jax.tasks.math_checker import nouns

_TEXT = r'\\(?:text(?:rm|bf|it|normal)?|mbox|mathrm)\s*\{([^{}\\$]*)\}'
_ONLY_TEXT = re.compile(rf'\(?{_TEXT}\)?,?')
_UNIT = re.compile(rf'(?:\\[,;:! ]|[\s~])*{_TEXT}\s*(?:\^\s*\{{?([0-9])\}}?)?[.\s]*$')
_WRAPPING = re.compile(r'\\(?:text(?:rm|bf|it|normal)?|mbox|mathrm)\b|\\[!,;: ]|[\s(){}.~$]')
_LETTER_AND = re.compile(r'(?<![A-Za-z])([A-Z]),? and (?=[A-Z](?![A-Za-z]))')
# Words that change what a number says; they are never dropped.
_VALUE_WORDS = frozenset(
  (
    'half halves third thirds quarter quarters first dozen dozens score pair pairs couple couples '
    'gross lakh lakhs crore crores mil mln mio bln thou grand kilo mega giga milli micro nano '
    'squared cubed root factorial reciprocal inverse inverted opposite raised power powers '
    'exponent single double doubled triple tripled halved twice thrice times plus minus negative '
    'negated multiplied divided added subtracted increased decreased modulo mod base choose '
    'remainder infinity infinite infinitely sqrt abs log exp sin cos tan cot csc pi alpha beta '
    'gamma delta epsilon zeta eta theta iota kappa lambda rho sigma tau phi chi psi omega not no '
    'non never none neither nor isnt arent wasnt cannot cant wont or and but except excluding '
    'without unless unlike instead rather wrong incorrect false untrue maybe perhaps possibly '
    'probably approximately approx about around roughly nearly almost circa ish to from between '
    'through until till below under above beneath beyond than least most more less fewer greater '
    'larger bigger smaller higher lower over off by ago am pm noon midnight bce point decimal '
    'basis'
  ).split()
)
_NUMBER_WORD = re.compile(
  '(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fif|eigh|nin|twelf'
  '|(?:twen|thir|four|for|fif|six|seven|eigh|nine)(?:teen|ty|tie)'
  '|hundred|thousand|[mbtr]+illion|quadrillion)(?:e?s|ths?)?'
)
# 5 pairs may be 10, 5 pairs of friends are counted as pairs.
_PAIRS_OF = re.compile(r'\bpairs? of (?=[a-z]{3})')
_UNIT_TEXT = re.compile(r"[A-Za-z\s./'-]*")
# Words of one or two letters that say nothing behind a number, and nothing around a box. Any other
# that is no measure may be a name, k or M.
_SMALL_IN_UNITS = frozenset('a an of in at on'.split())
_SMALL_AROUND = _SMALL_IN_UNITS | frozenset('is it so to we be as us'.split())
# What a number is written with; a letter besides these is an unknown.
_CONSTANTS = re.compile(
  r'\\(?:[dtc]?frac|[dt]?binom|sqrt|pi|cdot|times|left|right|pm|approx|circ|boxed)(?![a-zA-Z])'
)
_UNKNOWN = re.compile(r'[A-DF-Za-df-hj-z]|\\[a-zA-Z]')
# Each unit of measure and how else it is written. Other nouns (ways, students) are all one.
_MEASURES = {
  name: line.split()[0]
  for line in (
    'inch inches in',
    'foot feet ft',
    'yard yards yd',
    'mile miles mi',
    'mm millimeter millimeters millimetre millimetres',
    'cm centimeter centimeters centimetre centimetres',
    'm meter meters metre metres',
    'km kilometer kilometers kilometre kilometres',
    'mg milligram milligrams',
    'ounce ounces oz',
    'pound pounds lb lbs',
    'gram grams g gm',
    'kg kilogram kilograms',
    'second seconds sec secs s',
    'minute minutes min mins',
    'hour hours hr hrs h',
    'day days',
    'week weeks',
    'month months',
    'year years yr yrs',
    'dollar dollars usd',
    'cent cents',
    'euro euros',
    'degree degrees deg',
    'radian radians rad',
    'fahrenheit f',
    'celsius c',
    'gallon gallons gal',
    'liter liters litre litres l',
    'ml milliliter milliliters',
    'pint pints',
    'quart quarts',
    'acre acres',
    'unit units',
    'square sq 2',
    'cubic cu 3',
  )
  for name in line.split()
}
_MPH = {'mph': ['miles', 'per', 'hour']}


def is_words(latex: str) -> bool:
  r"""Whether an answer is a text, such as `\text{even}`, and not `\text{13}`."""
  match = _ONLY_TEXT.fullmatch(latex)
  return match is not None and any(char.isalpha() for char in match.group(1))


def words(latex: str) -> list[str]:
  """An answer as words to compare; a list of single letters in any order."""
  latex = _LETTER_AND.sub(r'\1,', latex)
  found = [word for word in _WRAPPING.sub('', latex).casefold().split(',') if word]
  return sorted(found) if all(len(word) == 1 for word in found) else found


def is_unit(text: str) -> bool:
  """Whether words behind a number say of what, as in "5 fresh eggs", and nothing of how many."""
  words = _unit_words(text)
  return bool(words) and not any(_changes_value(word) for word in words)


def says_nothing(text: str) -> bool:
  """Whether all words of a text around an answer may go: no unit, no number, no "not" or "or"."""
  words = re.findall('[a-z]+', text.lower())
  return not any(
    word in _VALUE_WORDS or _NUMBER_WORD.fullmatch(word) or word in _MEASURES
    if len(word) > 2
    else word not in _SMALL_AROUND
    for word in words
  )


def named_in(text: str) -> frozenset[str]:
  """The words of a question or reference, which an answer may have for its unit."""
  return frozenset(map(_singular, re.findall('[a-z]{3,}', text.lower())))


def _singular(word: str) -> str:
  return word[:-1] if word.endswith('s') and not word.endswith('ss') else word


def split_unit(latex: str, known: Collection[str] = ()) -> tuple[str, list[str], list[str]]:
  r"""(what stands before a text at the end, words that change its value, units of measure).

  A power belongs to the unit: `5 \text{ cm}^2` is ('5', [], ['cm', 'square']). What stands behind
  "per" is marked. A text that is more than a unit is all words that change the value. So are words
  that neither `nouns` nor `known` (see `named_in`) holds.
  """
  match = _UNIT.search(latex)
  if match is None or not latex[: match.start()].strip(' ('):
    head, others, measures = latex, [], []
  else:
    head = latex[: match.start()].strip()
    text, power = match.group(1), match.group(2) or ''
    words = _unit_words(text)
    if words == ['percent'] and not power:
      return head + r'\%', [], []
    if words is None or (power and _power(words, power) is None):
      others, measures = [*text.casefold().split(), power], []
    else:
      others = [word for word in words if _changes_value(word) or not _is_known(word, known)]
      measures = _measures([word for word in words if word not in others])
      measures += [_power(words, power)] if power else []
      has_unknown = _UNKNOWN.search(_CONSTANTS.sub('', head.rpartition('=')[2]))
      if has_unknown and any(word not in _MEASURES for word in words):
        # `x \text{ is odd}` is a statement about x.
        others = words
  if head.startswith(r'\$'):
    measures.append('dollar')
  if head.endswith('%'):
    measures.append('percent')
  if head.endswith((r'^\circ', r'^{\circ}')):
    measures.append('degree')
  return head, others, sorted(set(measures))


def _unit_words(text: str) -> list[str] | None:
  """The words of a unit, "/" being "per"; None for a text with anything but words."""
  if not _UNIT_TEXT.fullmatch(text):
    return None
  spaced = text.replace('/', ' per ').replace('-', ' ')
  spaced = _PAIRS_OF.sub('', spaced)
  words = spaced.replace('.', '').replace("'", '').split()
  is_cut_off = words[-1] == 'per' if words else bool(text.strip(' .'))
  if is_cut_off:
    return None
  # M is million and m is meter, but CM is cm.
  words = [word if len(word) == 1 and word not in 'CFL' else word.lower() for word in words]
  return [part for word in words for part in _MPH.get(word, [word])]


def _power(words: list[str], power: str) -> str | None:
  """'square' or 'cubic' where a power may belong to a unit; None where it may be the number's."""
  is_length = bool(words) and _MEASURES.get(words[-1], 'degree') != 'degree'
  return _MEASURES.get(power) if is_length else None


def _changes_value(word: str) -> bool:
  """Whether a word in a text behind a number changes it, or may do so."""
  if word in _MEASURES:
    return False
  if len(word) < 3:
    return word not in _SMALL_IN_UNITS
  return word in _VALUE_WORDS or bool(_NUMBER_WORD.fullmatch(word))


def _is_known(word: str, known: Collection[str]) -> bool:
  """Whether a word that changes no value may be a unit, or a part of one."""
  if len(word) < 3 or word in _MEASURES or word == 'per':
    return True
  return _singular(word) in nouns.KNOWN or _singular(word) in known


def _measures(words: list[str]) -> list[str]:
  """The measures among words; ['some noun'] where there is none."""
  found = []
  prefix = ''
  for word in words:
    if word in _MEASURES:
      found.append(prefix + _MEASURES[word])
    elif word == 'per':
      prefix = 'per '
  return found or (['some noun'] if words else [])
