r"""Finds the program in a model's text, by plain scans: a policy may learn to write anything."""

_PYTHON = ('python', 'python3', 'py')
_DEFINES = ('def ', 'class ', 'async def ', '@')
_STARTS = (*_DEFINES, 'import ', 'from ')


def extract_program(text: str) -> str | None:
  r"""The Python source that a text commits to.

  What follows the first [DONE] is not read (a model without a chat template goes on with problems
  of its own), nor what comes before the last [BEGIN] ahead of it, which may have been in the
  prompt. In the rest the last fenced block counts, of those that define something if there are any
  (an example of its use may follow), and of those marked as Python before those without a mark.
  Without a block it is everything between the marks; without marks, the whole text if a line of it
  begins a definition or an import. Whether it parses is for the sandbox to find out: a parser can
  be made to crash or to hang.

  Args:
    text: a model's answer.

  Returns:
    Source, or None where there is none.

  Example:
    >>> extract_program('Like this:\n```python\ndef f():\n  return 1\n```\nOr not.')
    'def f():\n  return 1'
    >>> extract_program('def f():\n  return 1\n[DONE]\nMore words.')
    'def f():\n  return 1\n'
    >>> extract_program('It is 4.') is None
    True
  """
  body, done, _ = text.partition('[DONE]')
  _, begin, body = body.rpartition('[BEGIN]')
  program = _last_block(body.split('\n'))
  if program is None and (done or begin or _begins(body, _STARTS)):
    program = body
  return program if program is not None and program.strip() else None


def _begins(text: str, words: tuple[str, ...]) -> bool:
  return any(line.startswith(words) for line in text.split('\n'))


def _last_block(lines: list[str]) -> str | None:
  """The last block between fences; first come those that define something, or are Python's.

  A block that is not closed (the text was cut off) goes on to the end. Lines lose the indentation
  that they share with the fence (a block in a list), and no more: an answer may be the body of a
  function.
  """
  found: dict[tuple[bool, bool], str] = {}
  start, mark, indent = None, '', 0
  for i, line in enumerate([*lines, '```']):
    fence = line.strip()
    if not fence.startswith('```'):
      continue
    if start is None:
      start, mark = i + 1, fence[3:].strip().lower()
      indent = len(line) - len(line.lstrip())
    elif fence == '```':
      if mark in _PYTHON or not mark:
        block = _shift_left(lines[start:i], indent)
        found[_begins(block, _DEFINES), mark in _PYTHON] = block
      start = None
  return found[max(found)] if found else None


def _shift_left(lines: list[str], most: int) -> str:
  """Lines without the indentation that they share, but no more than `most` of it."""
  indents = (len(line) - len(line.lstrip()) for line in lines if line.strip())
  shift = min([most, *indents])
  return '\n'.join(line[shift:] for line in lines)
