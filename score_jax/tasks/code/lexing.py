"""Just enough of Python's grammar to tell code from what is written in strings and comments.

Plain scans of one line at a time, in linear time whatever it holds: a policy may learn to write
anything, and a parser can be made to crash or to hang.
"""

import keyword
import re

# Possessive, so that no text makes them try again. The groups hold the quote that ends a string.
_TOKEN = re.compile(r'"""|\'\'\'|"(?:[^"\\]|\\.)*+("?)|\'(?:[^\'\\]|\\.)*+(\'?)|#', re.DOTALL)
_SPECIAL = re.compile(r'["\'#]')
_REST = {
  '"""': re.compile(r'(?:[^"\\]|\\.|"(?!""))*+"""', re.DOTALL),
  "'''": re.compile(r"(?:[^'\\]|\\.|'(?!''))*+'''", re.DOTALL),
}
_WORD = re.compile(r'\w+|[)\]}]|[^\w\s]')
_NO_CODE = re.compile(
  # What Python has no use for outside strings, as "What?" and "`f`" have,
  r'.*(?:[`$?]|!(?!=)|[^\w\x00-\x7f])'
  # a mark ("[/PYTHON]"), a list, a rule, a language by itself and the end of a sentence.
  r'|\[/?[A-Z]+\]\s*$|(?:[Pp]ython[ \d.]*|py)$'
  r'|\d+[.)]\s|[-+*]\s|\*\*|[<>%&|/=,;:^]|[-=_*~]{3,}\s*$|.*[^\W\d]\.\s*$'
)
_LABEL = re.compile(r'([^\W\d]\w*)\s*:(?!.*=)')
_OPENS = re.compile(
  r'(?:async|def|class|if|elif|else|for|while|try|except|finally|with|match|case)\b'
)
_SOFT = ('match', 'case', 'type')


def bare(line: str, quote: str = '') -> tuple[str, str]:
  r"""A line without its comment and without what stands in strings.

  A string that the line does not end is an apostrophe of prose, or a mistake, and stays.

  Args:
    line: without its line end.
    quote: the triple quote that is open where it begins, or ''.

  Returns:
    (the line, the triple quote that is open where it ends, or '').

  Example:
    >>> bare('x = "a" + \'\'\'b  # c')
    ('x = "" + ""', "'''")
    >>> bare("b''' + y  # c", "'''")
    (' + y  ', '')
  """
  if not quote and not _SPECIAL.search(line):
    return line, ''
  kept, position = [], 0
  while True:
    if quote:
      rest = _REST[quote].match(line, position)
      if rest is None:
        return ''.join(kept), quote
      quote, position = '', rest.end()
    token = _TOKEN.search(line, position)
    if token is None:
      return ''.join([*kept, line[position:]]), ''
    kept.append(line[position : token.start()])
    position = token.end()
    if token.group() == '#':
      return ''.join(kept), ''
    if token.group() in _REST:
      quote = token.group()
    elif not (token.group(1) or token.group(2)):
      return ''.join([*kept, line[token.start() :]]), ''
    kept.append('""')


def is_prose(code: str) -> bool:
  """Whether a line that begins a statement can be no Python, as two names in a row cannot.

  Args:
    code: the line, from `bare`.

  Example:
    >>> [is_prose(line) for line in ('This adds them:', '- O(n)', 'for x in y:', 'x = not y')]
    [True, True, False, False]
  """
  label = _LABEL.match(code)
  if _NO_CODE.match(code) or (label and not keyword.iskeyword(label.group(1))):
    return True
  if code.rstrip().endswith(':') and not _OPENS.match(code) and not re.search(r'[(\[{]', code):
    return True
  before = ''
  for word in _WORD.findall(code):
    is_name = word.isidentifier() and not keyword.iskeyword(word)
    if is_name and before and before not in _SOFT:
      return True
    before = word if is_name or word.isdigit() or word in ')]}' else ''
  return False
