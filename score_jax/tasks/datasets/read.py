"""Prepares a data set with TFDS, once, and reads it back through a TFDS data source.

Prepared data lies in the cache under a name that holds the checksum of its raw files. So a changed
file is prepared anew, the folder of the raw files may be read-only, and what is there is whole:
it was prepared under another name and then renamed.
"""

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
from typing import Any

from etils import epath

from score_jax.core.errors import in_words
from score_jax.tasks.datasets import files
from score_jax.tasks.datasets.catalogue import Dataset

_FORMAT = 'array_record'
# Of all prepared files, as sha256sum writes them: what TFDS says of its own files is not enough to
# tell that a row is missing.
_CHECKSUMS = 'SHA256SUMS'


def read_splits(
  dataset: Dataset, data_path: str | os.PathLike[str], cache: str | os.PathLike[str] = ''
) -> dict[str, list[dict[str, Any]]]:
  """Reads all splits of a data set, preparing it first where that was not done yet.

  Args:
    dataset: which.
    data_path: folder of the raw files, local or in a bucket; or 'download'.
    cache: folder for prepared data; see `files.cache_dir`.

  Returns:
    Rows by split, in the raw file's order; `id` is a row's position in its split.

  Raises:
    ValueError: a raw file is missing or broken (file and line are named), or the cache is.
  """
  # Imported here: whoever reads no published data does not wait for it.
  from score_jax.tasks.datasets import builders

  root = files.raw_root(dataset, data_path, cache)
  builder_class = builders.BUILDERS[dataset.name]
  folder = _prepared(builder_class, dataset, root, files.cache_dir(cache))
  try:
    if _checksums(folder) != (folder / _CHECKSUMS).read_text():
      raise ValueError(f'its files are not those of {_CHECKSUMS}')
    return _rows(builder_class(data_dir=folder, file_format=_FORMAT), dataset)
  except MemoryError:
    raise
  except Exception as error:  # TFDS, array_record and protobuf raise whatever comes to hand
    raise ValueError(
      f'{folder}: the prepared data is damaged ({in_words(error)}); delete the folder, '
      'and it is made anew'
    ) from error


def _checksums(folder: epath.Path) -> str:
  """The checksums of all prepared files, which lie below name and version."""
  return ''.join(
    f'{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n'
    for path in sorted(folder.glob('*/*/*'))
  )


def _rows(builder, dataset: Dataset) -> dict[str, list[dict[str, Any]]]:
  """All splits of a prepared data set."""
  splits = {
    name: [_decode(row) for row in builder.as_data_source(split=name)] for name in dataset.splits
  }
  for name, rows in splits.items():
    if [row['id'] for row in rows] != list(range(len(rows))):
      raise RuntimeError(f'the rows of split {name!r} are out of order')
  return splits


def _prepared(builder_class, dataset: Dataset, root: epath.Path, cache: epath.Path) -> epath.Path:
  """The folder of the prepared data; made if it is not there."""
  digest = hashlib.sha256(f'{dataset.version} {_CHECKSUMS}'.encode())
  for file in dataset.files:
    try:
      content = (root / file.path).read_bytes()
    except OSError as error:
      raise ValueError(
        f'{root / file.path}: cannot be read ({error.strerror}); check {dataset.flag}'
      ) from error
    digest.update(hashlib.sha256(content).digest())
  folder = cache / 'prepared' / f'{dataset.name}-{digest.hexdigest()[:16]}'
  if folder.exists():
    return folder
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = epath.Path(tempfile.mkdtemp(prefix='preparing-', dir=folder.parent))
  except OSError as error:
    raise ValueError(
      f'{cache}: prepared data cannot be written there ({in_words(error)}); set '
      '--config.data.cache to a folder that can be written'
    ) from error
  try:
    _prepare(builder_class, root, temporary)
    try:
      os.rename(temporary, folder)
    except OSError:
      # Another process was faster, with the same data.
      if not folder.exists():
        raise
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
  return folder


def _prepare(builder_class, root: epath.Path, folder: epath.Path) -> None:
  """Runs the builder, without its progress bars and announcements."""
  import tensorflow_datasets as tfds

  tfds.disable_progress_bar()
  builder = builder_class(data_dir=folder, file_format=_FORMAT)
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare(
      download_dir=folder / 'downloads',
      download_config=tfds.download.DownloadConfig(manual_dir=root),
    )
  shutil.rmtree(folder / 'downloads', ignore_errors=True)
  (folder / _CHECKSUMS).write_text(_checksums(folder))


def _decode(row: dict[str, Any]) -> dict[str, Any]:
  """TFDS gives bytes, NumPy scalars and arrays; back to what JSON gave."""
  return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
  if value is None:  # what a record file that was cut off gives
    raise RuntimeError('a row lacks a value')
  if isinstance(value, bytes):
    return value.decode('utf-8')
  if hasattr(value, '__len__'):
    return [item.decode('utf-8') for item in value]
  return int(value)
