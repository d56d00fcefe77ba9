"""JSON-lines files, with errors that name the file and the line."""

import gzip
import json
import os
from collections.abc import Mapping, Sequence

from etils import epath

from score_jax.core.errors import in_words

_NAMES = {str: 'text', int: 'a whole number', list: 'a list of texts'}


def read_jsonl(
  path: str | os.PathLike[str],
  fields: Sequence[str] | Mapping[str, type],
  *,
  flag: str = '--config.data.path',
) -> list[dict]:
  """Reads every row of a JSON-lines file, local or in a bucket, plain or gzipped (`.gz`).

  A broken line stops the program: a row that is silently left out would shift the ids of all rows
  after it, and with them the random keys.

  Args:
    path: the file; `gs://` works too. Blank lines are allowed and count as lines.
    fields: names that every row must have, each with text as its value; or name -> `str`, `int` or
      `list` (of texts).
    flag: the flag that sets the path, named when the file is not there.

  Returns:
    The rows in order, with all their fields.

  Raises:
    ValueError: a missing or empty file, a line that is not UTF-8, not JSON or not an object, a key
      that stands there twice, a missing field or one of another kind; with file and line.
  """
  return [row for _, row in read_located(path, fields, flag=flag)]


def read_located(
  path: str | os.PathLike[str],
  fields: Sequence[str] | Mapping[str, type],
  *,
  flag: str = '--config.data.path',
) -> list[tuple[str, dict]]:
  """As `read_jsonl`, each row with its place, `file:line`, for errors of what reads it."""
  path = epath.Path(path)
  if not path.exists():
    raise ValueError(f'{path}: no such file; set {flag} to the directory that holds it.')
  if path.is_dir():
    raise ValueError(f'{path}: is a directory, not a JSON-lines file; check {flag}.')
  content = path.read_bytes()
  if path.suffix == '.gz':
    try:
      content = gzip.decompress(content)
    except (OSError, EOFError) as error:
      raise ValueError(f'{path}: is damaged or not gzipped: {in_words(error)}') from error
  kinds = fields if isinstance(fields, Mapping) else dict.fromkeys(fields, str)
  rows = []
  for number, line in enumerate(content.split(b'\n'), start=1):
    if line.strip():
      where = f'{path}:{number}'
      rows.append((where, _parse_row(line, kinds, where)))
  if not rows:
    raise ValueError(f'{path}: holds no rows; check {flag}.')
  return rows


def _parse_row(line: bytes, kinds: Mapping[str, type], where: str) -> dict:
  """One line as a checked row; `where` is file:line."""
  try:
    text = line.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise ValueError(
      f'{where}: not UTF-8: byte 0x{line[error.start]:02x} at column {error.start + 1}'
    ) from error
  try:
    row = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
  except (ValueError, RecursionError) as error:  # also a number of more digits than Python reads
    raise ValueError(f'{where}: not JSON: {in_words(error)}') from error
  if not isinstance(row, dict):
    raise ValueError(f'{where}: a JSON object was expected, found {type(row).__name__}')
  for field, kind in kinds.items():
    if field not in row:
      raise ValueError(f'{where}: missing field {field!r}; the row has {sorted(row)}')
    if not _is_kind(row[field], kind):
      raise ValueError(
        f'{where}: field {field!r} should be {_NAMES[kind]}, found {type(row[field]).__name__}'
      )
  return row


def _unique(pairs: list[tuple[str, object]]) -> dict:
  """An object whose keys differ: of two values of one key, neither is to be believed."""
  row = dict(pairs)
  if len(row) < len(pairs):
    keys = [key for key, _ in pairs]
    twice = next(key for key in keys if keys.count(key) > 1)
    raise ValueError(f'the key {twice!r} stands there {keys.count(twice)} times; keep one')
  return row


def _no_constant(name: str) -> None:
  """Python reads NaN and Infinity, which JSON does not have."""
  raise ValueError(f'{name} is no value of JSON')


def _is_kind(value: object, kind: type) -> bool:
  """Whether a value is text, a whole number (a bool is none), or a list of texts."""
  if kind is list:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
  return isinstance(value, kind) and not isinstance(value, bool)
