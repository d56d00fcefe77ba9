"""Exceptions in words."""

import pathlib
import urllib.error

import pytest
from ml_collections import ConfigDict

from score_jax.core.errors import in_words


def raised(action):
  """What an action raises."""
  with pytest.raises(Exception) as found:
    action()
  return found.value


def test_real_errors_in_words(tmp_path):
  (tmp_path / 'file').write_text('')
  missing, inside = tmp_path / 'a b', tmp_path / 'file' / 'x'
  assert in_words(raised(missing.read_text)) == f'{missing}: No such file or directory'
  assert in_words(raised(lambda: inside.write_text(''))) == f'{inside}: Not a directory'
  assert in_words(raised(tmp_path.read_text)) == f'{tmp_path}: Is a directory'
  other = tmp_path / 'c' / 'd'
  words = in_words(raised(lambda: (tmp_path / 'file').rename(other)))
  assert words == f'{tmp_path / "file"} and {other}: No such file or directory'
  assert in_words(raised(lambda: {}['x'])) == 'there is no "x"'
  assert in_words(raised(lambda: ConfigDict().rows)) == 'there is no "rows"'


@pytest.mark.parametrize(
  ('error', 'words'),
  [
    (OSError(28, 'No space left on device'), 'No space left on device'),
    (OSError('no number'), 'no number'),
    (ValueError(f'bad {pathlib.PurePosixPath("a/b")!r}'), 'bad a/b'),
    (ValueError(f'{int} of {dict(a=1).keys()}'), "int of 'a'"),
    (ValueError('it said: [Errno 13] Permission denied'), 'it said: Permission denied'),
    (KeyError('a field "modle"'), 'a field "modle"'),
    (urllib.error.URLError(OSError(-3, 'Name not known')), 'Name not known'),
    (ValueError(), 'ValueError'),
  ],
)
def test_nothing_that_only_python_reads(error, words):
  assert in_words(error) == words
