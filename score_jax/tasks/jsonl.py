"""JSON-lines files, with errors that name the file and the line."""

import json
import os
from collections.abc import Sequence

from etils import epath


def read_jsonl(
  path: str | os.PathLike[str],
  fields: Sequence[str],
  *,
  flag: str = '--config.data.path',
) -> list[dict]:
  """Reads every row of a JSON-lines file, local or in a bucket.

  A broken line stops the program: a row that is silently left out would shift the ids of all rows
  after it, and with them the random keys.

  Args:
    path: the file; `gs://` works too. Blank lines are allowed and count as lines.
    fields: names that every row must have, each with text as its value.
    flag: the flag that sets the path, named when the file is not there.

  Returns:
    The rows in order, with all their fields.

  Raises:
    ValueError: a missing or empty file, a line that is not UTF-8, not JSON or not an object, a
      missing field or one that is not text; with file and line.
  """
  path = epath.Path(path)
  if not path.exists():
    raise ValueError(f'{path}: no such file; set {flag} to the directory that holds it.')
  if path.is_dir():
    raise ValueError(f'{path}: is a directory, not a JSON-lines file; check {flag}.')
  rows = []
  for number, line in enumerate(path.read_bytes().split(b'\n'), start=1):
    if line.strip():
      rows.append(_parse_row(line, fields, where=f'{path}:{number}'))
  if not rows:
    raise ValueError(f'{path}: holds no rows; check {flag}.')
  return rows


def _parse_row(line: bytes, fields: Sequence[str], where: str) -> dict:
  """One line as a checked row; `where` is file:line."""
  try:
    text = line.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise ValueError(
      f'{where}: not UTF-8: byte 0x{line[error.start]:02x} at column {error.start + 1}'
    ) from error
  try:
    row = json.loads(text)
  except (json.JSONDecodeError, RecursionError) as error:
    raise ValueError(f'{where}: not JSON: {error}') from error
  if not isinstance(row, dict):
    raise ValueError(f'{where}: a JSON object was expected, found {type(row).__name__}')
  for field in fields:
    if field not in row:
      raise ValueError(f'{where}: missing field {field!r}; the row has {sorted(row)}')
    if not isinstance(row[field], str):
      raise ValueError(
        f'{where}: field {field!r} should be text, found {type(row[field]).__name__}'
      )
  return row
