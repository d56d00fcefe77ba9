"""Writes docs/config.md: `python docs/make_config_page.py --output=docs/config.md`.

The page has a row for each config key. What a row says is read from `score_jax/core/config.py`
itself: the key's default, and its comment, above the assignment or behind it. A comment may hold
two things in a fixed form:

    c.train.num_steps = 100  # [updates] of this stage (paper: training steps)
                                UNIT                          SYMBOL
"""

import argparse
import ast
import dataclasses
import inspect
import io
import re
import sys
import tokenize
from collections.abc import Sequence

from ml_collections import ConfigDict

from score_jax.core import config as config_module
from score_jax.core.config import NOT_IDENTITY, default_config, leaves
from score_jax.core.config_check import range_of
from score_jax.runs.files import write_atomic

UNITS = (
  *('1/nat', 'bytes', 'checkpoints', 'devices', 'episodes', 'epochs', 'fraction', 'iterations'),
  *('layers', 'nats', 'problems', 'processes', 'seconds', 'tokens', 'traces', 'turns', 'updates'),
)
_UNIT = re.compile(r'\[([^]]*)\]\s*')
_SYMBOL = re.compile(r'\s*\(paper: ([^)]*)\)')
_PAGE_LINK = re.compile(r'docs/(\w+\.md)')
_INTRODUCTION = """\
<!-- Made by `python docs/make_config_page.py --output=docs/config.md`; do not edit. -->
# Config keys

Every key of a run's config, as `--config.KEY=VALUE` sets it on a command line, made from the
comments in [score_jax/core/config.py](../score_jax/core/config.py). A key that is not here is
refused, and so is a value of another type.

- **unit**: what the number counts or measures; none for a name, a switch or a plain factor.
- **paper**: the symbol or the name that arXiv:2409.12917 has for it.
- **may change**: a run can be started again with another value and goes on as the same run. All
  other keys are part of what the run is, and another value is refused. A path may change if what
  lies there is the same, by its checksum.
"""


@dataclasses.dataclass(frozen=True)
class Key:
  """One key, or one part of the config.

  Attributes:
    key: dotted, without 'config.'.
    default: its value, a ConfigDict for a part.
    meaning: its comment without what the fields below hold.
    unit: '' where it has none.
    symbol: the paper's, '' where it has none.
  """

  key: str
  default: object
  meaning: str
  unit: str = ''
  symbol: str = ''

  @property
  def is_part(self) -> bool:
    """Whether it holds other keys; an empty dict is data, such as the names of levels."""
    return isinstance(self.default, ConfigDict) and len(self.default) > 0


def read_comments(source: str) -> dict[str, str]:
  """Reads the comment of each `c.KEY = VALUE` of a file.

  Args:
    source: Python source.

  Returns:
    By dotted key without the `c`, in the order of the file: the comment lines right above the
    assignment and the one behind it, as one text; '' where there is none.

  Example:
    >>> read_comments('# above\\nc.a = 1  # behind\\nc.a.b = (\\n  2)\\n')
    {'a': 'above behind', 'a.b': ''}
  """
  comments, is_alone = {}, {}
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      line = token.start[0]
      comments[line] = token.string.lstrip('# ')
      is_alone[line] = not token.line[: token.start[1]].strip()
  found = {}
  for node in ast.walk(ast.parse(source)):
    targets = node.targets if isinstance(node, ast.Assign) else []
    for target in targets:
      root, _, key = ast.unparse(target).partition('.')
      if root != 'c' or not key:
        continue
      first = node.lineno
      while is_alone.get(first - 1):
        first -= 1
      lines = [n for n in range(first, node.end_lineno + 1) if n in comments]
      found[key] = (node.lineno, ' '.join(comments[n] for n in lines))
  # `ast.walk` goes by depth: back into the order of the file.
  return {key: text for key, (_, text) in sorted(found.items(), key=lambda item: item[1][0])}


def make_row(key: str, default: object, comment: str) -> Key:
  """Takes a comment apart.

  Args:
    key: dotted.
    default: its value.
    comment: from `read_comments`.

  Returns:
    The row.

  Raises:
    ValueError: if there is no comment, or a unit that is not in `UNITS`.

  Example:
    >>> row = make_row('train.num_steps', 100, '[updates] of this stage (paper: training steps)')
    >>> row.unit, row.meaning, row.symbol
    ('updates', 'of this stage', 'training steps')
  """
  where = f'score_jax/core/config.py: c.{key}'
  units, symbols = _UNIT.findall(comment), _SYMBOL.findall(comment)
  meaning = _SYMBOL.sub('', _UNIT.sub('', comment)).strip()
  if not meaning:
    raise ValueError(f'{where} has no comment that says what it is')
  if not set(units) <= set(UNITS) or len(units) > 1 or len(symbols) > 1:
    raise ValueError(
      f'{where}: the comment has the units {units} and the symbols {symbols}; give at most one of '
      f'each, the unit one of {UNITS} (write an interval in words)'
    )
  return Key(key, default, meaning, *(units or ['']), *(symbols or ['']))


def read_rows(source: str, defaults: ConfigDict) -> list[Key]:
  """Joins comments and defaults.

  Args:
    source: of the file that makes the defaults.
    defaults: what it makes.

  Returns:
    A row for each key and each part, in the order of the file.

  Raises:
    ValueError: naming every key that has no comment or no assignment of its own, and every
      assignment of a key that there is none of.
  """
  comments, wrong, rows = read_comments(source), [], []
  for key, _ in leaves(defaults, 'c'):
    if key.removeprefix('c.') not in comments:
      wrong.append(f'{key}: no `{key} = VALUE  # COMMENT` in score_jax/core/config.py')
  for key, comment in comments.items():
    try:
      default = defaults
      for name in key.split('.'):
        default = default[name]
      rows.append(make_row(key, default, comment))
    except (KeyError, AttributeError, TypeError):
      wrong.append(f'score_jax/core/config.py assigns c.{key}, which the defaults do not have')
    except ValueError as error:
      wrong.append(str(error))
  if wrong:
    raise ValueError('docs/config.md cannot be made:\n  ' + '\n  '.join(wrong))
  return rows


def is_changeable(key: str) -> bool:
  """Whether the key may change between two starts of a run, by itself or with its whole part."""
  return any(key == name or key.startswith(f'{name}.') for name in NOT_IDENTITY)


def type_name(value: object) -> str:
  """The type of a default, in words.

  Example:
    >>> [type_name(value) for value in (1, 0.5, True, 'a', (0.0,), ConfigDict())]
    ['integer', 'number', 'True or False', 'text', 'tuple of numbers', 'dict']
    >>> type_name(())
    'tuple of numbers'
  """
  if isinstance(value, ConfigDict):
    return 'dict'
  if isinstance(value, tuple):
    # The defaults that are empty stand for numbers.
    return f'tuple of {type_name(value[0] if value else 0.0)}s'
  names = {int: 'integer', float: 'number', bool: 'True or False', str: 'text'}
  return names[type(value)]


def page(rows: Sequence[Key]) -> str:
  """Lays the rows out as a Markdown page, one table for each part of the config.

  Args:
    rows: from `read_rows`.

  Returns:
    The page.
  """
  parts = {row.key: row for row in rows if row.is_part}
  keys = [row for row in rows if not row.is_part]
  lines = []
  for part in ['', *parts]:
    inside = [row for row in keys if row.key.rpartition('.')[0] == part]
    if inside:
      lines += (
        [f'## {part}', '', _sentence(parts[part].meaning), ''] if part else ['## The run', '']
      )
      lines += ['| key | default | type | unit | meaning | paper | may change |']
      lines += ['|---|---|---|---|---|---|---|', *map(_table_line, inside), '']
  return _INTRODUCTION + '\n' + _PAGE_LINK.sub(r'[docs/\1](\1)', '\n'.join(lines))


def _sentence(text: str) -> str:
  return f'{text[0].upper()}{text[1:]}.'


def _table_line(row: Key) -> str:
  default = '{}' if isinstance(row.default, ConfigDict) else repr(row.default)
  words = range_of(row.key)
  meaning = row.meaning + (f'; {words}' if words else '')
  cells = [f'`{row.key}`', f'`{default}`', type_name(row.default), row.unit]
  cells += [meaning.replace('|', '\\|'), row.symbol, 'yes' if is_changeable(row.key) else '']
  return f'| {" | ".join(cells)} |'.replace('|  |', '| |').replace('|  |', '| |')


def config_page() -> str:
  """Returns what docs/config.md must hold; raises ValueError as `read_rows` does."""
  return page(read_rows(inspect.getsource(config_module), default_config()))


def main(arguments: Sequence[str]) -> None:
  """Prints or writes the page.

  Args:
    arguments: of the command line, without the program's name.

  Raises:
    ValueError: as `read_rows` does.
  """
  parser = argparse.ArgumentParser(prog='python docs/make_config_page.py')
  parser.add_argument('--output', help='file to write; the page is printed by default')
  output = parser.parse_args(arguments).output
  if output is None:
    print(config_page(), end='')
  else:
    write_atomic(output, config_page())


if __name__ == '__main__':
  main(sys.argv[1:])
