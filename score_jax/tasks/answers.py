r"""Finds the final answer in a model's text.

The prompt asks for "Final Answer: The final answer is $answer$. I hope it is correct."; models also
close with `\boxed{}`. Plain scans, linear in the length of the text: it is written by a policy that
may learn to write anything.
"""

import re

_SENTENCE = re.compile(r'final answer is', re.IGNORECASE)
_TAIL = re.compile(r'I hope it is correct', re.IGNORECASE)
_SENTENCE_END = re.compile(r'\.(?=\s|$)|\n')
_DISPLAY = {'$$': '$$', '\\[': '\\]'}
_DOLLARS_THEN_WORDS = re.compile(r'\$([^$]+)\$\s*([A-Za-z]+(?: [A-Za-z]+)?)\.?')
_INLINE_DOLLAR = re.compile(r'(?<!\\)\$')
_DISPLAY_BRACKET = re.compile(r'(?<!\\)\\[()\[\]]')
_NUMBER = re.compile(r'(?<![0-9.])-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?')


def extract_answer(text: str) -> str | None:
  r"""The answer that a text commits to, as LaTeX without its dollar signs.

  The last "final answer is ..." counts; without one, the last `\boxed{}` whose braces balance. A
  number elsewhere in the text is not an answer.

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
  return _from_sentence(text) or last_boxed(text)


def last_boxed(text: str) -> str | None:
  r"""What stands in the last `\boxed{...}` whose braces balance, or None."""
  end = len(text)
  while end > 0:
    start = text.rfind(r'\boxed', 0, end)
    if start < 0:
      return None
    content = _balanced(text[start:end])
    if content is not None:
      return clean(content) or None
    end = start
  return None


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

  Words after the dollars stay, as text: `$5$ cm` is `5 \text{cm}`, never 5 times c times m. Where
  several boxes stand side by side nothing is chosen among them: hedging is not an answer.

  Example:
    >>> clean(r' $\boxed{\$18.90}$. ')
    '\\$18.90'
    >>> clean(r'$2$ or $3$')
    '2 or 3'
  """
  if answer.count(r'\boxed') == 1:
    boxed = _balanced(answer[answer.index(r'\boxed') :])
    answer = answer if boxed is None else boxed
  answer = answer.strip(' \n\t*')
  united = _DOLLARS_THEN_WORDS.fullmatch(answer)
  if united:
    answer = united.group(1) + r' \text{' + united.group(2) + '}'
  answer = _INLINE_DOLLAR.sub(' ', answer)
  # `\\[` inside a matrix is a line break followed by a bracket, not the start of a display.
  answer = _DISPLAY_BRACKET.sub(' ', answer)
  return ' '.join(answer.split()).strip(' *').removesuffix('.').strip(' *')


def _from_sentence(text: str) -> str | None:
  """The answer of the last "final answer is" sentence, or None."""
  sentences = list(_SENTENCE.finditer(text))
  if not sentences:
    return None
  rest = text[sentences[-1].end() :].lstrip(' :\n\t*')
  tail = _TAIL.search(rest)
  if tail:
    return clean(rest[: tail.start()]) or None
  # The closing words are missing: a display runs to its end, anything else to the end of its
  # sentence or line.
  closing = _DISPLAY.get(rest[:2])
  if closing and closing in rest[2:]:
    return clean(rest[2 : rest.index(closing, 2)]) or None
  return clean(_SENTENCE_END.split(rest, maxsplit=1)[0]) or None


def _balanced(text: str) -> str | None:
  """What stands between the first brace of `text` and its partner, or None; not `\\{`."""
  start = text.find('{')
  if start < 0 or text[:start].strip() != r'\boxed':
    return None
  depth = 0
  position = start
  while position < len(text):
    if text[position] == '\\':
      position += 2
      continue
    depth += {'{': 1, '}': -1}.get(text[position], 0)
    if depth == 0:
      return text[start + 1 : position]
    position += 1
  return None
