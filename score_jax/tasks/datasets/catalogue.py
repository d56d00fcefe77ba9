"""What data sets there are: raw files, published addresses, checksums, splits and fields.

Addresses name a commit, so that they stay what they are. The checksum of a file that the user
placed is not compared with the published one: another selection of rows is the user's to make.
"""

import ast
import dataclasses
import re
from collections.abc import Callable, Mapping

from score_jax.tasks.code import counting

_GSM8K = (
  'https://raw.githubusercontent.com/openai/grade-school-math/'
  '3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data'
)
# Stored with Git LFS: the plain address would give a pointer to the file, not the file.
_PRM800K = (
  'https://media.githubusercontent.com/media/openai/prm800k/'
  '7ecc794703b2877f63226f2477a49b34f9b25163/prm800k/math_splits'
)


@dataclasses.dataclass(frozen=True)
class RawFile:
  """A file as its authors published it.

  Attributes:
    path: below the data folder.
    url: where it can be downloaded; '' where it is not published.
    sha256: of the file at `url`.
    hint: what to do where it is missing and cannot be downloaded.
  """

  path: str
  url: str = ''
  sha256: str = ''
  hint: str = ''


@dataclasses.dataclass(frozen=True)
class Split:
  """A part of a data set.

  Attributes:
    file: where its rows lie, in this order.
    task_ids: those of the file's rows that are of it; None takes all.
  """

  file: RawFile
  task_ids: range | None = None


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A data set.

  Attributes:
    name: of the TFDS builder.
    version: raised when the prepared rows change while the raw files do not.
    about: what it is, with source and licence.
    fields: name -> `str`, `int` or `list` (of texts), of every row.
    key: the field that no two rows have alike; '' for none.
    filled: fields that hold more than spaces in every row.
    optional: fields that may be missing, null or of another kind; read as text, '' for none.
    splits: by name.
    complaint: a row -> what is wrong with it, '' if nothing.
    flag: the flag that names the folder of the raw files.
  """

  name: str
  version: str
  about: str
  fields: Mapping[str, type]
  splits: Mapping[str, Split]
  key: str = ''
  filled: tuple[str, ...] = ()
  optional: tuple[str, ...] = ()
  complaint: Callable[[dict], str] = lambda row: ''
  flag: str = '--config.data.path'

  @property
  def files(self) -> list[RawFile]:
    """The raw files, each once."""
    return list(dict.fromkeys(split.file for split in self.splits.values()))


_NUMBER = re.compile(r'-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?')


def _gsm8k_complaint(row: dict) -> str:
  """The answer ends with `#### NUMBER`."""
  _, mark, number = row['answer'].rpartition('####')
  if not mark:
    return "no '####' before the final number"
  if not _NUMBER.fullmatch(number.strip()):
    return f'a number is expected behind the last ####, found {number.strip()!r}'
  return ''


def _mbpp_complaint(row: dict) -> str:
  """An empty test would let every program pass."""
  if not row['test_list']:
    return 'the test_list is empty'
  if not all(map(str.strip, row['test_list'])):
    return 'a test of test_list is empty'
  tests = '\n'.join(filter(str.strip, [row['test_setup_code'], *row['test_list']]))
  return _test_complaint('test_list', tests.replace('\r\n', '\n'))


def _test_complaint(name: str, tests: str) -> str:
  """What the checker would raise at the first answer to this row, without its place."""
  try:
    counting.prepare(tests)
  except ValueError as error:
    return f'field {name!r}: {error}'
  return ''


def _humaneval_complaint(row: dict) -> str:
  """The tests call `check` of the function in the prompt."""
  if f'def {row["entry_point"]}(' not in row['prompt']:
    return f'the prompt has no function {row["entry_point"]!r}'
  if 'def check(' not in row['test']:
    return "the test has no function 'check'"
  try:
    ast.parse(row['prompt'])
  except (SyntaxError, ValueError) as error:
    return f"field 'prompt' is no Python: {error}"
  return _test_complaint('test', row['test'])


MATH = Dataset(
  name='score_math',
  version='1.0.0',
  about='MATH (Hendrycks et al. 2021), 12,000 problems, and MATH500 (Lightman et al. 2023). MIT.',
  fields={'problem': str, 'answer': str},
  optional=('solution', 'subject', 'level', 'unique_id'),
  splits={
    'train': Split(
      RawFile(
        'math/train.jsonl',
        f'{_PRM800K}/train.jsonl',
        '90d96daeac3fe343ebb1e22ce93dd99690f75983e957f88de42f87cffe1e8076',
      )
    ),
    'test': Split(
      RawFile(
        'math/test.jsonl',
        f'{_PRM800K}/test.jsonl',
        '35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132',
      )
    ),
  },
)

GSM8K = Dataset(
  name='score_gsm8k',
  version='1.0.0',
  about='GSM8K (Cobbe et al. 2021), 7,473 and 1,319 word problems. MIT.',
  fields={'question': str, 'answer': str},
  filled=('question',),
  splits={
    'train': Split(
      RawFile(
        'gsm8k/train.jsonl',
        f'{_GSM8K}/train.jsonl',
        '17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465',
      )
    ),
    'test': Split(
      RawFile(
        'gsm8k/test.jsonl',
        f'{_GSM8K}/test.jsonl',
        '3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14',
      )
    ),
  },
  complaint=_gsm8k_complaint,
)

_MBPP_FILE = RawFile(
  'mbpp/mbpp.jsonl',
  'https://raw.githubusercontent.com/google-research/google-research/'
  '4700efb9afa54286b0e04473ba80a13e8461e25f/mbpp/mbpp.jsonl',
  'ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f',
)

MBPP = Dataset(
  name='score_mbpp',
  version='1.0.0',
  about='MBPP (Austin et al. 2021), 974 programming problems, with its own splits. CC-BY 4.0.',
  # challenge_test_list is left out: it is empty in most rows, and the reward does not use it.
  fields={'text': str, 'code': str, 'task_id': int, 'test_setup_code': str, 'test_list': list},
  splits={
    'prompt': Split(_MBPP_FILE, range(1, 11)),
    'test': Split(_MBPP_FILE, range(11, 511)),
    'validation': Split(_MBPP_FILE, range(511, 601)),
    'train': Split(_MBPP_FILE, range(601, 975)),
  },
  key='task_id',
  filled=('text', 'code'),
  complaint=_mbpp_complaint,
)

HUMANEVAL = Dataset(
  name='score_humaneval',
  version='1.0.0',
  about='HumanEval (Chen et al. 2021), 164 programming problems. MIT.',
  fields=dict.fromkeys(('task_id', 'prompt', 'entry_point', 'canonical_solution', 'test'), str),
  splits={
    'test': Split(
      RawFile(
        'humaneval/HumanEval.jsonl.gz',
        'https://raw.githubusercontent.com/openai/human-eval/'
        '6d43fb980f9fee3c892a914eda09951f772ad10d/data/HumanEval.jsonl.gz',
        'b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef',
      )
    )
  },
  key='task_id',
  filled=('entry_point', 'prompt', 'test'),
  complaint=_humaneval_complaint,
)

MBPP_R = Dataset(
  name='score_mbpp_r',
  version='1.0.0',
  about='Failing programs for MBPP problems, made by `python -m score_jax.repair_set`. CC-BY 4.0.',
  fields={'task_id': int, 'question': str, 'tests': str, 'program': str, 'reason': str},
  splits={
    'test': Split(
      RawFile(
        'programs.jsonl',
        hint='the original is not public; make a set with python -m score_jax.repair_set',
      )
    )
  },
  filled=('question', 'tests', 'program'),
  flag='--set',
)
