r"""Finds the final answer in a model's text.

The prompt asks for "Final Answer: The final answer is $answer$. I hope it is correct."; models also
close with `\boxed{}`. Plain scans, linear in the length of the text: it is written by a policy that
may learn to write anything.
"""

import re
from typing import NamedTuple

from score_jax.tasks.math_checker import characters, units

_SENTENCE = re.compile(r'final answer is', re.IGNORECASE)
_TAIL = re.compile(r'I hope it is correct', re.IGNORECASE)
_SENTENCE_END = re.compile(r'\.(?=\s|$)|\n')
# A box, its one character if it has no braces, and what opens or closes a group.
_BOX = re.compile(r'\\(?:boxed|fbox)(?![A-Za-z])')
_BOX_OR_BRACE = re.compile(
  r'(\\(?:boxed|fbox)(?![A-Za-z])\s*)(?:(\{)|([0-9A-Za-z])(?![0-9A-Za-z]))?|\\.|([{}])', re.DOTALL
)
_MATHEMATICS = re.compile(r'[$\\0-9]')
_DISPLAY = {'$$': '$$', '\\[': '\\]'}
_DOLLARS_THEN_WORDS = re.compile(r'\$([^$]+)\$\s*([A-Za-z]+(?: [A-Za-z]+){0,4})(\^\{?[23]\}?)?\.?')
# The power of a unit in the text of it: `\text{ cm²}`.
_POWER_IN_TEXT = re.compile(r'(\\(?:text|mathrm)\{[A-Za-z. ]+)(\^(?:[23]|\{[23]\}))\}$')
_INLINE_DOLLAR = re.compile(r'(?<!\\)\$')
_DISPLAY_BRACKET = re.compile(r'(?<!\\)\\[()\[\]]')
_DIGITS = r'-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?'
_NUMBER = re.compile(rf'(?<![0-9.]){_DIGITS}')
# A number and the words behind it, such as `18 eggs` and `\$18/day`.
_NUMBER_THEN_WORDS = re.compile(
  rf'((?:\\\$ ?)?{_DIGITS})( |/)([a-z]{{3,}}(?:[ /][a-z]+){{0,4}})\.?'
)
# A number that is written as text or in bold, and perhaps a unit behind it.
_NUMBER_AS_TEXT = re.compile(
  r'\\(?:text(?:rm|bf|it|normal)?|mbox|math(?:rm|bf|it)|boldsymbol|bf|rm)\s*'
  rf'\{{\s*({_DIGITS}|-?[0-9]+/[0-9]+)\s*([A-Za-z ./]*)\}}'
)
# Up to four words, of more the first one.
_WORDS_BEHIND = re.compile(
  r'[\s$]*([A-Za-z]{3,}(?:(?: [A-Za-z]+){0,3}(?=[\s$.]*$))?)(?:[\s$.]*| [A-Za-z\s$.]*)'
)
_BESIDE_BOX = re.compile(r'(?:[A-Za-z\s,.:;*$]|\\[()\[\]])*')
# One equation or a chain of them, up to the last equals sign; several would be a list.
_EQUATION = re.compile(r'[^,;]*[^,;!<>:/=]=')
_REFUSALS = frozenset(
  'not no never nor neither ne neq neg wrong incorrect false quad lor vee'.split()
)
# Spacing commands, which may stand before and behind an answer.
_SPACING = (r'\,', r'\;', r'\:', r'\!', r'\quad ', r' \quad', r'\qquad ', r' \qquad', '~', ' ')
_SPACE_AT_END = re.compile(r'(?<!\\)((?:\\\\)*)\\$')
_DEGREE = re.compile(
  r'\^?\N{DEGREE SIGN}|\^\s*\{\s*(?:\\degree|\N{DEGREE SIGN})\s*\}|\^?\\degree(?![a-zA-Z])'
  r'|(?<=[0-9])\s*\^\s*(?:o|\{o\})(?![a-zA-Z0-9])'
)


def extract_answer(text: str) -> str | None:
  r"""The answer that a text commits to, as LaTeX without its dollar signs.

  The last "final answer is ..." counts; without one, the last `\boxed{}`. A sentence without its
  closing words ("I hope it is correct") gives way to a box after it, and one that holds neither
  mathematics nor a number ("the final answer is even, so ...") to any box. A last box that is never
  closed is no answer, and takes back the ones before it. A number elsewhere is not an answer.

  Args:
    text: a model's answer.

  Returns:
    The answer, or None where there is none (or an empty one).

  Example:
    >>> extract_answer('So 2+2=4. Final Answer: The final answer is $4$. I hope it is correct.')
    '4'
    >>> extract_answer(r'Hence $x = \boxed{\frac{1}{2}}$.')
    '\\frac{1}{2}'
    >>> extract_answer('It is 4.') is None
    True
  """
  part = final_part(text)
  return _from_sentence(part) if _SENTENCE.match(part) else last_boxed(part)


def final_part(text: str) -> str:
  r"""The part of a text that alone decides `extract_answer`; often the same in different texts.

  Example:
    >>> final_part('So 2+2=4. Final Answer: The final answer is $4$. I hope it is correct. Bye')
    'final answer is $4$. I hope it is correct'
  """
  start, end = _last_sentence(text)
  sentence = text[start:end]
  box = _last_box(text)
  if sentence and _from_sentence(sentence):
    is_closed = bool(_TAIL.search(sentence))
    if is_closed or box is None or (box.start < end and _MATHEMATICS.search(sentence)):
      return sentence
  return '' if box is None else text[box.start : box.end]


def last_boxed(text: str) -> str | None:
  r"""What stands in the last `\boxed{...}` or `\fbox{...}`, or None if it is not closed.

  As in TeX, `\boxed 2` is a box as well; a box within a box is a part of it.
  """
  box = _last_box(text)
  return None if box is None or box.content is None else clean(box.content) or None


def last_number(text: str) -> str | None:
  """The last decimal number of a text, without thousands separators, or None.

  Example:
    >>> last_number('1,000 + 19 = 1,019. Done!')
    '1019'
  """
  found = _NUMBER.findall(text.replace('\u2212', '-'))
  return found[-1].replace(',', '') if found else None


def clean(answer: str) -> str:
  r"""Takes the wrapping off an answer: dollars, `\( \)`, words around one box, a last full stop.

  Words after the dollars stay, as text: `$5$ cm` is `5 \text{cm}`, never 5 times c times m. Nothing
  is chosen among several boxes, nor between one and what stands around it: hedging is no answer.

  Example:
    >>> clean(r' $\boxed{\$18.90}$. ')
    '\\$18.90'
    >>> clean(r'$2$ or $3$')
    '2 or 3'
  """
  if len(_BOX.findall(answer)) == 1:
    answer = _unboxed(answer)
  answer = _in_latex(answer).strip(' \n\t*')
  united = _DOLLARS_THEN_WORDS.fullmatch(answer)
  if united:
    answer = united.group(1) + r' \text{' + united.group(2) + '}' + (united.group(3) or '')
  answer = _INLINE_DOLLAR.sub(' ', answer)
  # `\\[` inside a matrix is a line break followed by a bracket, not the start of a display.
  answer = _DISPLAY_BRACKET.sub(' ', answer)
  answer = ' '.join(answer.split()).strip(' *').removesuffix('.').strip(' *')
  # Of a space command at the end the space is gone by now.
  answer = _POWER_IN_TEXT.sub(r'\1}\2', answer)
  answer = _without_space(_SPACE_AT_END.sub(r'\1', answer))
  return _with_text_as_text(answer)


def _without_space(answer: str) -> str:
  """An answer without the spacing commands around it."""
  before = None
  while answer != before:
    before = answer
    for space in _SPACING:
      answer = answer.removeprefix(space)
      # The end of a row of a matrix, and a comma.
      if not answer.endswith('\\' + space):
        answer = answer.removesuffix(space)
  return answer


def _unboxed(answer: str) -> str:
  """An answer without the mark of its one box.

  What leads to the box goes. Anything else stays, and is part of the answer: a box in "not 4" or
  "5 or 4" does not choose, and words right behind it may be a unit or change the number.
  """
  box = _last_box(answer)
  if box is None or box.content is None:
    return answer
  before, after = answer[: box.start], answer[box.end :]
  if _is_idle(before) or _leads_to_box(before, after):
    before = ''
  words = _WORDS_BEHIND.fullmatch(after)
  if words:
    after = rf'\text{{{words[1]}}}'
  elif _is_idle(after):
    after = ''
  if not before and not after:
    return box.content
  content = box.content if box.content.isalnum() else rf'\boxed{{{box.content}}}'
  return f'{before} {content} {after}'


def _is_idle(text: str) -> bool:
  """Whether a text beside a box is words that say nothing."""
  return bool(_BESIDE_BOX.fullmatch(text)) and units.says_nothing(text)


def _leads_to_box(before: str, after: str) -> bool:
  r"""Whether a box is what the text before it comes to: `64 - 2 = \boxed{62}`."""
  words = set(re.findall('[a-z]+', before.lower()))
  if words & _REFUSALS:
    return False
  if 'in interval notation' in before + after:
    return True
  if 'or' in words:
    return False
  end = before.rstrip(' \n\t$:([\\')
  return end.endswith('which is') or bool(_EQUATION.fullmatch(end))


def _in_latex(answer: str) -> str:
  """An answer with LaTeX for the characters that stand in its place, and for degrees."""
  if answer.isascii() and '^' not in answer and r'\degree' not in answer:
    return answer
  answer = characters.as_latex(answer)
  return _DEGREE.sub(r'^\\circ', answer)


def _with_text_as_text(answer: str) -> str:
  r"""`\text{13}` as `13`, and `18 eggs` and `\text{18 eggs}` as `18 \text{eggs}`."""
  number = _NUMBER_AS_TEXT.fullmatch(answer)
  if number:
    unit = number.group(2).strip()
    return number.group(1) + (rf' \text{{{unit}}}' if unit else '')
  counted = _NUMBER_THEN_WORDS.fullmatch(answer)
  if counted and units.is_unit(counted.group(3)) and _is_prose(counted.group(3)):
    slash = counted.group(2).strip()
    return rf'{counted.group(1)} \text{{{slash}{counted.group(3)}}}'
  return answer


def _is_prose(text: str) -> bool:
  """False for words that may be a product of letters, such as `abc` and `xyz`."""
  return all(
    len(word) > 4 or (re.search('[aeiouy]', word) and list(word) != sorted(set(word)))
    for word in re.findall('[a-z]{3,}', text)
  )


def _last_sentence(text: str) -> tuple[int, int]:
  """Where the last "final answer is ..." starts and ends; (0, 0) where there is none."""
  starts = [match.start() for match in _SENTENCE.finditer(text)]
  if not starts:
    return 0, 0
  start = starts[-1]
  tail = _TAIL.search(text, start)
  if tail:
    return start, tail.end()
  # The closing words are missing: a display runs to its end, anything else to the end of its
  # sentence or line.
  first = len(text) - len(_after_is(text[start:]))
  closing = _DISPLAY.get(text[first : first + 2])
  end = text.find(closing, first + 2) if closing else -1
  if end >= 0:
    return start, end + len(closing)
  stop = _SENTENCE_END.search(text, first)
  return start, stop.start() if stop else len(text)


def _after_is(sentence: str) -> str:
  """What follows on "final answer is" and a colon, spaces or stars."""
  return sentence[_SENTENCE.match(sentence).end() :].lstrip(' :\n\t*')


def _from_sentence(sentence: str) -> str | None:
  """The answer in a sentence that `_last_sentence` found, or None."""
  return clean(_TAIL.split(_after_is(sentence), maxsplit=1)[0]) or None


class _Box(NamedTuple):
  start: int
  end: int
  content: str | None  # None where the box is not closed, or holds more than TeX puts into it


def _last_box(text: str) -> _Box | None:
  """The last box that is not within another one, closed or not; None without any."""
  first = _BOX.search(text)
  if first is None:
    return None
  last, opened = None, []
  for match in _BOX_OR_BRACE.finditer(text, first.start()):
    command, brace, single, other = match.groups()
    if command is not None:
      last = _Box(match.start(), match.end(), single)
    if brace or other == '{':
      opened.append((match.start() if brace else None, match.end()))
    elif other == '}' and opened:
      start, inside = opened.pop()
      # A box that closes later than another one and starts before it holds it.
      if start is not None:
        last = _Box(start, match.end(), text[inside : match.start()])
  return last
