"""Cuts a model's text into blocks at its fences, as CommonMark does, and forgives what it does not.

A fence is a line of three back-ticks or tildes, or more, and perhaps words; it ends a block that
begins with as many of the same. Beyond CommonMark a block also ends at a fence with words behind
it, before the fence of another language, at the end of a line of code, and with the text; and no
fence counts inside a string of the program. What lies outside fences is a block too, so that it
does not matter which of a text's fences opens and which closes.
"""

import dataclasses
import re

from score_jax.tasks.code.lexing import bare

OUTSIDE, UNMARKED, PYTHON, FOREIGN = 'outside', 'unmarked', 'python', 'foreign'
# The beginning of what is surely code.
STARTS = re.compile(
  r'(?:async\s+)?def\s+\w+\s*[(\[]|class\s+\w+\s*[(:\[]|import\s+\w|from\s+[\w.]+\s+import\b|@\w'
)

_FENCE = re.compile(r'[ \t]*(`{3,}|~{3,})(.*)')
_TAIL = re.compile(r'(?<![`~\s#])[ \t]*+(`{3,}+|~{3,}+)[ \t]*+([\w.+#-]*+)[ \t]*+$')
_INSIDE = re.compile(r'(?<![ \t])[ \t]*+(`{3,}+)([^`]*+)$')
_NAME = re.compile(r'[a-z_]+')
_ITEM = re.compile(r'[ \t]*+(?:[-*+]|\d++[.)])\s*+$')  # of a list: what follows is indented with it
_RETURN = re.compile(r'(?:return|yield)\b')
_HEADER = re.compile(
  r'(?:if|elif|else|for|while|try|except|finally|with|match|case|async)\b.*:\s*$'
)
_PYTHON = {'python', 'py', 'ipython', 'tool_code'}
_FOREIGN = set(
  'text txt plaintext plain output out console terminal shell bash sh zsh powershell cmd bat log '
  'json yaml yml toml ini xml html css csv sql diff patch markdown md latex tex math pycon doctest '
  'pseudocode pseudo java javascript js typescript ts c cpp cc csharp cs go rust ruby rb php perl '
  'swift kotlin scala haskell lua r julia matlab dart groovy elixir make makefile dockerfile '
  'mermaid input stdin stdout stderr result results traceback error none'.split()
)
# A block that holds blocks is read again, this deep; a string that never ends, this often.
_MAX_DEPTH = 2
_MAX_TRIES = 8


@dataclasses.dataclass(frozen=True)
class Block:
  """A piece of a text between two fences.

  Attributes:
    kind: what the fence before it says: OUTSIDE, UNMARKED, PYTHON or FOREIGN.
    lines: without the indentation that they share with the fence.
  """

  kind: str
  lines: list[str]


@dataclasses.dataclass(frozen=True)
class _Fence:
  """The fence before a block; `head` is code that stands on its line, after which it may end."""

  run: str = ''
  kind: str = OUTSIDE
  indent: int = 0
  head: str = ''
  is_closed: bool = False

  def ends_at(self, run: str) -> bool:
    return not self.run or (run[0] == self.run[0] and len(run) >= len(self.run))


def blocks(text: str, depth: int = 0) -> list[Block]:
  """Cuts a text at its fences.

  Args:
    text: with `\\n` as line ends.
    depth: of blocks within blocks; 0 for a text.

  Returns:
    The blocks that hold anything, in order; a line of one is a fence only in a string of a program.

  Example:
    >>> [(block.kind, block.lines) for block in blocks('So:\\n```python\\nx = 1\\n```')]
    [('outside', ['So:']), ('python', ['x = 1'])]
  """
  lines, found, start, fence, tries = text.split('\n'), [], 0, _Fence(), _MAX_TRIES
  while fence is not None:
    piece = _read(lines, start, fence, mind_strings=tries > 0)
    if piece.is_in_string:  # to the end: no string, then, but a mistake
      tries -= 1
      piece = _read(lines, start, fence, mind_strings=False)
    if any(map(str.strip, piece.lines)):
      shifted = _shift_left(piece.lines, fence.indent)
      if not piece.has_fences:
        found.append(Block(fence.kind, shifted))
      elif depth < _MAX_DEPTH:
        found += blocks('\n'.join(shifted), depth + 1)
    start, fence = piece.end, piece.fence
  return found


@dataclasses.dataclass
class _Piece:
  """The lines of a block; the first line behind it, and the fence that stands before that."""

  lines: list[str]
  end: int
  fence: _Fence | None = None
  has_fences: bool = False
  is_in_string: bool = False


def _read(lines: list[str], start: int, fence: _Fence, mind_strings: bool) -> _Piece:
  """Reads one block, from the line after its fence."""
  piece = _Piece([fence.head] if fence.head else [], start)
  if fence.is_closed:
    piece.fence = _Fence()
    return piece
  # Prose has apostrophes: strings count from the first line that is code.
  is_code, has_text, quote = fence.kind in (UNMARKED, PYTHON), False, ''
  for i in range(start, len(lines)):
    line = lines[i]
    if not quote:
      # The body of a function, without its header, begins indented.
      is_code = is_code or STARTS.match(line) or (not has_text and line[:1] in (' ', '\t'))
      has_text = has_text or line.strip()
    was_in_string = quote
    code, quote = bare(line, quote) if is_code and mind_strings else (line, '')
    if '```' in line or '~~~' in line:
      kept, following = (line, None) if was_in_string else _whole_line(line, fence)
      if following is None and not quote:
        kept, following = _end_of_line(line, code, fence, bool(is_code))
      if following is not None:
        piece.lines += [kept] if kept else []
        piece.end, piece.fence = i + 1, following
        return piece
      piece.has_fences |= not was_in_string and _as_fence(line) is not None
    piece.lines.append(line)
  piece.is_in_string = bool(quote)
  return piece


def _as_fence(line: str) -> tuple[str, str] | None:
  """The back-ticks or tildes that a line begins with, and the words behind them.

  Back-ticks in the words make it code within a sentence, but for a program of one line.
  """
  found = _FENCE.match(line)
  if found is None:
    return None
  run, words = found[1], found[2].strip()
  inside = words.removesuffix(run)
  if run[0] == '`' and '`' in words and ('`' in inside or not _code_in(inside)):
    return None
  return run, words


def _code_in(words: str) -> str:
  """What of the words behind a fence is code: `python def f():`."""
  code = words.partition(' ')[2].lstrip() if _kind(words) == PYTHON else words
  return code if STARTS.match(code) else ''


def _whole_line(line: str, fence: _Fence) -> tuple[str, _Fence | None]:
  """A line that is a fence, where it counts as one: (nothing of the block, the fence)."""
  found = _as_fence(line)
  if not found or not fence.ends_at(found[0]):
    return line, None
  run, words = found
  kind, head = _kind(words), _code_in(words)
  if fence.run and kind == UNMARKED and not head:
    return '', _Fence()
  indent = len(line) - len(line.lstrip())
  return '', _Fence(run, kind, indent, head.removesuffix(run), head.endswith(run))


def _end_of_line(line: str, code: str, fence: _Fence, is_code: bool) -> tuple[str, _Fence | None]:
  """A line with a fence behind its code or words: (what stands before it, the fence).

  Or (the line, None): a fence in a string or beside another is none.
  """
  found = _TAIL.search(line)
  if not found and is_code and '```' in code:
    found = _INSIDE.search(line)
  if not found or not fence.ends_at(found[1]) or line.find(found[1][:3]) != found.start(1):
    return line, None
  words, before = found[2], line[: found.start()]
  indent = found.start(1) if _ITEM.match(before) else 0
  if found.re is _TAIL and words:
    kind = _kind(words)
    is_opening = not fence.run and kind in (PYTHON, FOREIGN)
    return (before, _Fence(found[1], kind, indent)) if is_opening else (line, None)
  return before, _Fence() if fence.run or is_code else _Fence(found[1], UNMARKED, indent)


def _kind(words: str) -> str:
  """What the words behind a fence say of the block."""
  names = _NAME.findall(words.lower())
  if names and names[0] in _FOREIGN:
    return FOREIGN
  return PYTHON if _PYTHON.intersection(names) else UNMARKED


def code_at_left(block: Block) -> Block:
  """A block moved to the left by the indentation of the first line that is surely code.

  The block itself where that is none, or where it is the body of something.
  """
  before, most = '', 0
  for line in filter(str.strip, block.lines):
    if STARTS.match(line.lstrip()):
      most = len(line) - len(line.lstrip())
      break
    before = line
  if not most or _HEADER.match(before):
    return block
  lines = [line[min(most, len(line) - len(line.lstrip())) :] for line in block.lines]
  return block if any(map(_RETURN.match, lines)) else Block(block.kind, lines)


def _shift_left(lines: list[str], most: int) -> list[str]:
  """Lines without the indentation that they share, but no more than `most` of it.

  A block in a list is indented with its fence; and an answer may be the body of a function.
  """
  indents = (len(line) - len(line.lstrip()) for line in lines if line.strip())
  shift = min([most, *indents])
  return [line[shift:] for line in lines]
