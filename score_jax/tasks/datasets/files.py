"""Finds a data set's raw files: in the user's folder, or downloaded and checked."""

import hashlib
import os
import tempfile
import urllib.error
import urllib.request

from etils import epath

from score_jax.core.errors import in_words
from score_jax.core.storage import writing
from score_jax.tasks.datasets.catalogue import Dataset, RawFile

# What --config.data.path is set to for files that should come from their published address.
DOWNLOAD = 'download'
_TIMEOUT_S = 60.0


def cache_dir(cache: str | os.PathLike[str] = '') -> epath.Path:
  """The folder for downloads and prepared data.

  Args:
    cache: the folder asked for; '' takes `$XDG_CACHE_HOME/score_jax`, or `~/.cache/score_jax`.

  Returns:
    The folder; it need not exist yet.
  """
  if cache:
    return epath.Path(cache)
  home = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
  return epath.Path(home) / 'score_jax'


def raw_root(
  dataset: Dataset, data_path: str | os.PathLike[str], cache: str | os.PathLike[str] = ''
) -> epath.Path:
  """The folder below which all raw files of a data set lie, after downloading if asked for.

  Args:
    dataset: which.
    data_path: the user's folder, local or in a bucket; or 'download'.
    cache: see `cache_dir`.

  Returns:
    The folder.

  Raises:
    ValueError: a file is missing, cannot be downloaded, or is not the published one.
  """
  if str(data_path) != DOWNLOAD:
    root = epath.Path(data_path)
    for file in dataset.files:
      if (root / file.path).is_dir():
        raise ValueError(f'{root / file.path}: is a directory, not a file; check {dataset.flag}')
      if not (root / file.path).exists():
        hint = file.hint or f'or to {DOWNLOAD!r}, to take it from {file.url}'
        raise ValueError(
          f'{root / file.path}: no such file; set {dataset.flag} to the directory that holds '
          f'{file.path} ({hint})'
        )
    return root
  root = cache_dir(cache) / 'raw'
  for file in dataset.files:
    _fetch(file, root)
  return root


def _fetch(file: RawFile, root: epath.Path) -> None:
  """Downloads one file, unless it is there already."""
  if not file.url:
    raise ValueError(f'{file.path} cannot be downloaded: {file.hint}')
  target = root / file.path
  if target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() == file.sha256:
    return
  advice = f'put the file at DATA/{file.path} yourself and set --config.data.path=DATA'
  try:
    with urllib.request.urlopen(file.url, timeout=_TIMEOUT_S) as response:
      content = response.read()
  except (urllib.error.URLError, OSError) as error:
    raise ValueError(f'{file.url}: cannot be downloaded ({in_words(error)}); {advice}') from error
  found = hashlib.sha256(content).hexdigest()
  if found != file.sha256:
    raise ValueError(
      f'{file.url}: is not the file that was published: {len(content)} bytes with sha256 {found}, '
      f'expected {file.sha256}; {advice}'
    )
  with writing(target, len(content)):
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent)
    with os.fdopen(handle, 'wb') as stream:
      stream.write(content)
    os.replace(name, target)
