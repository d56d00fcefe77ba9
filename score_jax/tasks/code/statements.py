"""Cuts a block of code into its statements, without those who read it: sentences are left out."""

import dataclasses
import re
from collections.abc import Iterable

from score_jax.tasks.code.fences import STARTS
from score_jax.tasks.code.lexing import bare, is_prose

DEFINITION, ASSIGNMENT, IMPORT, OTHER = 'definition', 'assignment', 'import', 'other'

_DECORATOR = '@'
_DEFINITION = re.compile(r'(?:async\s+)?(?:def|class)\s+(\w+)')
_ASSIGNED = re.compile(r'[^\W\d]\w*+(?:\s*+,\s*+[^\W\d]\w*+)*+\s*+(?::[^=]*+)?=(?!=)')
# What else begins code after a sentence.
_RESUMES = re.compile(r'[^\W\d][\w.]*+[(\[]|(?:if|for|while|with|try|match)\b.*:\s*$')
_CONTINUES = re.compile(r'(?:else|elif|except|finally)\b|[)\]}]')
_NAME = re.compile(r'[^\W\d]\w*')


@dataclasses.dataclass
class Statement:
  """A statement at the top level, and what belongs to it: decorators, body, else.

  Attributes:
    kind: DEFINITION of a function or class, ASSIGNMENT, IMPORT (also in a `try`) or OTHER.
    names: that it binds; '*' where it imports all.
    lines: its source, with the empty lines behind it.
  """

  kind: str
  names: set[str]
  lines: list[str]


def names_in(lines: Iterable[str]) -> set[str]:
  """Every name that lines hold, those in strings and comments too."""
  return {name for line in lines for name in _NAME.findall(line)}


def statements(lines: list[str], is_code: bool) -> list[Statement]:
  """Cuts lines into statements.

  A line that begins a statement and can be no Python is prose, and so are the lines after it up to
  one that begins code. Every other line is in a statement, in order.

  Args:
    lines: of a block.
    is_code: whether code may begin with anything; otherwise all is prose before the first
      definition, import, assignment or call.

  Returns:
    The statements.
  """
  found: list[Statement] = []
  quote, depth, goes_on, in_prose = '', 0, False, not is_code
  for line in lines:
    begins = not quote and not goes_on and line[:1] not in ('', ' ', '\t', '\f')
    code, after = bare(line, quote)
    if begins:
      is_start = STARTS.match(code) is not None
      depth = 0 if is_start else depth  # a bracket of prose is not closed
      if not depth:
        if is_prose(code):
          in_prose = True
        elif in_prose:
          in_prose = not (is_start or _ASSIGNED.match(code) or _RESUMES.match(code))
        if not in_prose and not _belongs_to(found, code):
          found.append(_begin(code))
    if in_prose:
      continue
    if not found:
      found.append(Statement(OTHER, set(), []))
    statement = found[-1]
    statement.lines.append(line)
    if statement.kind == _DECORATOR and (defined := _DEFINITION.match(code)) and begins:
      statement.kind, statement.names = DEFINITION, {defined[1]}
    elif statement.kind == IMPORT:
      statement.names |= _imported(code, statement.lines[0])
    quote, goes_on = after, code.endswith('\\')
    depth = max(0, depth + sum(map(code.count, '([{')) - sum(map(code.count, ')]}')))
  if quote and found[-1].lines[0].strip() == quote:  # three quotes for a fence
    found.pop()
  return found


def _belongs_to(found: list[Statement], code: str) -> bool:
  """Whether a line at the left goes on with the statement before it."""
  return bool(found) and (found[-1].kind == _DECORATOR or _CONTINUES.match(code) is not None)


def _begin(code: str) -> Statement:
  """A statement by its first line."""
  if defined := _DEFINITION.match(code):
    return Statement(DEFINITION, {defined[1]}, [])
  if code.startswith(('import ', 'from ', 'try:')):
    return Statement(IMPORT, set(), [])
  if assigned := _ASSIGNED.match(code):
    return Statement(ASSIGNMENT, set(_NAME.findall(assigned[0].partition(':')[0])), [])
  return Statement(_DECORATOR if code.startswith('@') else OTHER, set(), [])


def _imported(code: str, first: str) -> set[str]:
  """Names that a line of an import binds; of a `try`, those of the imports in it."""
  if first.startswith('try:') and not re.match(r'\s*(?:import|from)\s', code):
    return set()
  if '*' in code:
    return {'*'}
  bound = set()
  for part in code.rpartition('import ')[2].split(','):
    words = _NAME.findall(part)
    bound.update(words[-1:] if 'as' in words else words[:1])
  return bound
