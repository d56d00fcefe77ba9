"""TFDS builders of the data sets; importing this file imports tensorflow-datasets.

They are plain TFDS builders. The raw files are what TFDS calls manual downloads:

    builder = builders.Gsm8k(data_dir='prepared', file_format='array_record')
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=DATA))
    builder.as_data_source('train')[0]
"""

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from score_jax.core import jsonl
from score_jax.tasks.datasets import catalogue

_FEATURES = {
  str: tfds.features.Text,
  int: lambda: tfds.features.Scalar(np.int64),
  list: lambda: tfds.features.Sequence(tfds.features.Text()),
}


class JsonlBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A builder whose rows come from JSON-lines files; `dataset` says which."""

  dataset: catalogue.Dataset
  MANUAL_DOWNLOAD_INSTRUCTIONS = 'The folder that holds math/, gsm8k/, mbpp/ and humaneval/.'

  def __init_subclass__(cls, **kwargs):
    """Takes name and version from the data set."""
    cls.name = cls.dataset.name
    cls.VERSION = tfds.core.Version(cls.dataset.version)
    super().__init_subclass__(skip_registration=True, **kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    kinds = {'id': int, **self.dataset.fields, **dict.fromkeys(self.dataset.optional, str)}
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.dataset.about,
      features=tfds.features.FeaturesDict(
        {name: _FEATURES[kind]() for name, kind in kinds.items()}
      ),
      # A problem's id is its position: the rows stay in the file's order.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
    root = epath.Path(dl_manager.manual_dir)
    return {
      name: self._generate_examples(root / split.file.path, split.task_ids)
      for name, split in self.dataset.splits.items()
    }

  def _generate_examples(
    self, path: epath.Path, task_ids: range | None
  ) -> Iterator[tuple[int, dict]]:
    index, places = 0, {}
    for where, row in jsonl.read_located(path, self.dataset.fields, flag=self.dataset.flag):
      if task_ids is not None and row['task_id'] not in task_ids:
        continue
      empty = [f'field {name!r} is empty' for name in self.dataset.filled if not row[name].strip()]
      complaint = next(iter(empty), '') or self.dataset.complaint(row)
      if complaint:
        raise ValueError(f'{where}: {complaint}')
      key = self.dataset.key
      if key and (first := places.setdefault(row[key], where)) != where:
        raise ValueError(f'{where}: {key} {row[key]} stands at {first} already')
      example = {'id': index} | {name: row[name] for name in self.dataset.fields}
      for name in self.dataset.optional:
        example[name] = '' if row.get(name) is None else str(row[name])
      _check_encodable(example, where)
      yield index, example
      index += 1
    if not index:
      raise ValueError(f'{path}: no row has a task_id of {task_ids[0]} to {task_ids[-1]}')


def _check_encodable(example: dict, where: str) -> None:
  """Half of a surrogate pair is valid JSON but not UTF-8, and a number may be of any size."""
  for name, value in example.items():
    if isinstance(value, int) and abs(value) >= 1 << 63:
      raise ValueError(f'{where}: field {name!r} does not fit 64 bits')
    texts = value if isinstance(value, list) else [value]
    for text in texts:
      if isinstance(text, str):
        try:
          text.encode('utf-8')
        except UnicodeEncodeError as error:
          raise ValueError(
            f'{where}: field {name!r} cannot be written as UTF-8: {error}'
          ) from error


class Math(JsonlBuilder):
  """MATH and MATH500."""

  dataset = catalogue.MATH


class Gsm8k(JsonlBuilder):
  """GSM8K."""

  dataset = catalogue.GSM8K


class Mbpp(JsonlBuilder):
  """MBPP with its splits by task id."""

  dataset = catalogue.MBPP


class HumanEval(JsonlBuilder):
  """HumanEval; a test split only."""

  dataset = catalogue.HUMANEVAL


class MbppR(JsonlBuilder):
  """Failing programs for MBPP problems; a test split only."""

  dataset = catalogue.MBPP_R


BUILDERS = {cls.dataset.name: cls for cls in (Math, Gsm8k, Mbpp, HumanEval, MbppR)}
