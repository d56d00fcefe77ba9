r"""Finds the program in a model's text, by plain scans: a policy may learn to write anything."""

import re
from collections.abc import Collection

from score_jax.tasks.code import fences
from score_jax.tasks.code.fences import Block
from score_jax.tasks.code.lexing import bare
from score_jax.tasks.code.statements import (
  ASSIGNMENT,
  DEFINITION,
  IMPORT,
  Statement,
  names_in,
  statements,
)

# A mark beside a quote or an escape is part of a string.
_THOUGHT = re.compile(r'(?<!["\'])</(?:think|thinking|thought|reasoning|scratchpad)>(?!["\'\\])')
_BEGIN = re.compile(r'(?<!["\'])\[BEGIN\](?!["\'])')
_DONE = re.compile(r'(?<!["\'])\[DONE\](?!["\'])')
_BOUND = re.compile(r'\b([^\W\d]\w*+)\s*+=(?!=)')
_PARAMETERS = re.compile(r'\bdef\s+\w+\s*\(([^()\n]*)')
_PARAMETER = re.compile(r'(?:^|,)[\s*]*+([^\W\d]\w*+)\s*+(?=[:=,]|$)')  # no annotation, no default
_INPUT = {'input', 'open', 'sys'}
_FUTURE = 'from __future__ '


def answer_part(text: str) -> tuple[str, bool]:
  r"""The part of a text that it commits to: between thoughts and marks.

  Args:
    text: a model's answer.

  Returns:
    (the part, with `\n` as line ends; whether [BEGIN] or [DONE] marks it as a program).
  """
  text = text.replace('\r\n', '\n').replace('\r', '\n').replace('\ufeff', '')
  thoughts = [match.end() for match in _THOUGHT.finditer(text)]
  text = text[thoughts[-1] :] if thoughts else text
  done = _DONE.search(text)
  text = text[: done.start()] if done else text
  begins = [match.end() for match in _BEGIN.finditer(text)]
  return text[begins[-1] :] if begins else text, bool(done or begins)


def extract_program(text: str, names: Collection[str] = ()) -> str | None:
  r"""The Python source that a text commits to.

  1. What is read: nothing before the last `</think>`, which ends a draft; nothing after the first
     [DONE] (a model without a chat template goes on with problems of its own), nor before the last
     [BEGIN] ahead of it, which may have been in the prompt.
  2. The rest is cut into blocks at its fences (fences.py); those of other languages do not count.
  3. Of the blocks it takes the last that defines what the tests call: a demonstration, tests or a
     `main` may follow. Of the other blocks it takes what that one uses and does not define
     (imports, functions, classes, constants), and a function of its own that a later one corrects.
  4. Sentences around the code are left out (statements.py).
  5. A program that is indented as a whole is moved to the left, where none stands there.

  Where no block defines those names, the last one that defines anything counts, or is code at all.
  Whether it parses is for the sandbox to find out: a parser can be made to crash or to hang.

  Args:
    text: a model's answer.
    names: that the tests call; where they are not known, any function or class will do.

  Returns:
    Source, or None where there is none.

  Example:
    >>> extract_program('Like this:\n```python\ndef f():\n  return 1\n```\nOr not.')
    'def f():\n  return 1'
    >>> extract_program('def f():\n  return 1\n```\nUse it so:\n```\ndef main():\n  f()', {'f'})
    'def f():\n  return 1'
    >>> extract_program('It is 4.') is None
    True
  """
  body, is_marked = answer_part(text)
  cut, names = fences.blocks(body), frozenset(names)
  found = [_Source(block, is_marked) for block in cut]
  if not any(source.has(names) for source in found):
    moved = [_Source(fences.code_at_left(block), is_marked) for block in cut]
    found = moved if any(source.has(names) for source in moved) else found
  chosen = _choose(found, names)
  if chosen is None:
    return None
  return _with_helpers(found, chosen, names)


def extract_body(text: str) -> str | None:
  """The body of a function, without its header, that a text goes on with from a prompt.

  Args:
    text: a model's answer.

  Returns:
    The indented lines of its first block that begins with one, or None.

  Example:
    >>> extract_body('    return 1```\\nThis is all.')
    '    return 1\\n'
  """
  for block in fences.blocks(answer_part(text)[0]):
    first = next((line for line in block.lines if line.strip()), '')
    if first[:1] in (' ', '\t') and block.kind != fences.FOREIGN:
      kept, quote = [], ''
      for line in block.lines:
        if not quote and line.strip() and line[0] not in ' \t':
          break
        kept.append(line)
        quote = bare(line, quote)[1]
      return '\n'.join(kept) + '\n'
  return None


def future_first(source: str) -> str:
  """A program put together of several, with its imports from `__future__` where they must be."""
  if _FUTURE not in source:
    return source
  lines = source.split('\n')
  return '\n'.join(sorted(lines, key=lambda line: not line.startswith(_FUTURE)))


class _Source:
  """A block with its statements, and what they bind."""

  def __init__(self, block: Block, is_marked: bool):
    self.kind = block.kind
    self.is_code = is_marked or block.kind != fences.OUTSIDE
    self.statements = statements(block.lines, self.is_code)
    self.kinds = {statement.kind for statement in self.statements}

  @property
  def lines(self) -> list[str]:
    return [line for statement in self.statements for line in statement.lines]

  def defines(self, names: frozenset[str], kinds: tuple[str, ...]) -> bool:
    for statement in self.statements:
      for name in names & statement.names if statement.kind in kinds else ():
        # No value that a demonstration has from the function itself.
        source = '\n'.join(statement.lines)
        if statement.kind != ASSIGNMENT or 'lambda' in source or source.count(name) == 1:
          return True
    return False

  def has(self, names: frozenset[str]) -> bool:
    """Whether it defines one of the names; where they are not known, a function or class."""
    kinds = (DEFINITION, ASSIGNMENT, IMPORT)
    return self.defines(names, kinds) if names else DEFINITION in self.kinds

  def binds(self, *kinds: str) -> set[str]:
    found = (statement.names for statement in self.statements if statement.kind in kinds)
    return set().union(*found)


def _choose(sources: list[_Source], names: frozenset[str]) -> _Source | None:
  """The last block that defines a name; or else the last that is most like a program."""
  own = [source for source in sources if source.kind != fences.FOREIGN]
  for group in (own, sources):  # where no other is marked as Python, forgive a wrong mark
    for kinds in ((DEFINITION, ASSIGNMENT), (IMPORT,)):
      if found := [source for source in group if source.defines(names, kinds)]:
        return found[-1]
  rest = [
    source
    for source in reversed(own)  # of equal ones `max` takes the first
    if any(map(str.strip, source.lines)) and (source.is_code or source.kinds & {DEFINITION, IMPORT})
  ]
  return max(
    rest,
    key=lambda s: (DEFINITION in s.kinds, s.kind == fences.PYTHON, s.kind != fences.OUTSIDE),
    default=None,
  )


def _with_helpers(sources: list[_Source], chosen: _Source, names: frozenset[str]) -> str:
  """A block, with those statements of the others that it needs."""
  own = chosen.binds(DEFINITION, ASSIGNMENT, IMPORT)
  table, picked = _table(sources, chosen, own, names)
  wanted = names | names_in(chosen.lines)
  while wanted:
    new = {id(table[name]): table[name] for name in wanted if name in table}
    new = {key: statement for key, statement in new.items() if key not in picked}
    picked |= new
    wanted = set().union(*(names_in(statement.lines) for statement in new.values()))
  if not picked:
    return '\n'.join(chosen.lines)
  before, after = [], []
  for statement in (statement for source in sources for statement in source.statements):
    if id(statement) in picked:
      is_corrected = statement.kind == DEFINITION and statement.names & own
      (after if is_corrected else before).extend(statement.lines)
  return future_first('\n'.join([*before, *chosen.lines, *after]))


def _table(
  sources: list[_Source], chosen: _Source, own: set[str], names: frozenset[str]
) -> tuple[dict[str, Statement], dict[int, Statement]]:
  """Who defines a name outside the chosen block: the last one, a definition before an import.

  Returns:
    (name -> statement; by its id each import before it of all that a module has, always needed).
  """
  source = '\n'.join(chosen.lines)
  parameters = (_PARAMETER.findall(found) for found in _PARAMETERS.findall(source))
  assigned = set(_BOUND.findall(source)).union(*parameters)
  # A value is a constant; not the result of a demonstration.
  no_constant = _INPUT.union(names, *(source.binds(DEFINITION) for source in sources))
  table: dict[str, Statement] = {}
  stars, is_later = {}, False
  for source in sources:
    is_later |= source is chosen
    if source is chosen or source.kind == fences.FOREIGN:
      continue
    for statement in source.statements:
      found, kind = statement.names, statement.kind
      if '*' in found and not is_later:
        stars[id(statement)] = statement
      if kind == ASSIGNMENT:
        words = names_in(statement.lines)
        is_constant = 'lambda' in words or not (is_later or no_constant & (words - found))
        found = found - assigned if is_constant else set()
      if kind != DEFINITION or not is_later:
        found = found - own
      for name in found:
        if kind == DEFINITION or name not in table or table[name].kind != DEFINITION:
          table[name] = statement
  return table, stars
