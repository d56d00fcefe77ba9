"""Data sets: found or downloaded, prepared with TFDS once, read back as they were written."""

import concurrent.futures
import dataclasses
import hashlib

import pytest
from raw_data import GSM8K_ROWS, HUMANEVAL_ROW, MATH_ROWS, mbpp_row, write

from score_jax.tasks.datasets import catalogue
from score_jax.tasks.datasets.read import read_splits


def test_rows_come_back_as_they_were_written(raw, cache):
  splits = read_splits(catalogue.MATH, raw, cache)
  assert splits == {
    name: [
      {
        'id': i,
        'problem': row['problem'],
        'answer': row['answer'],
        'solution': '',
        'subject': row.get('subject', ''),
        'level': '' if row['level'] is None else str(row['level']),
        'unique_id': '',
      }
      for i, row in enumerate(MATH_ROWS[:count])
    ]
    for name, count in (('train', 3), ('test', 1))
  }
  # Far more rows than a shuffled or sharded writer would leave in place.
  questions = [row['question'] for row in read_splits(catalogue.GSM8K, raw, cache)['train']]
  assert questions == [row['question'] for row in GSM8K_ROWS]


def test_mbpp_is_split_by_task_id(raw, cache):
  splits = read_splits(catalogue.MBPP, raw, cache)
  ids = {name: [row['task_id'] for row in rows] for name, rows in splits.items()}
  assert ids == {
    'prompt': list(range(1, 11)),
    'test': list(range(11, 511)),
    'validation': list(range(511, 601)),
    'train': list(range(601, 975)),
  }
  row = splits['train'][1]
  assert (row['id'], row['code']) == (1, 'def f():\r\n  return 1')
  assert row['test_list'] == ['assert f() == 0', 'assert f() == 1', 'assert f() == 2']


def test_humaneval_is_gzipped(raw, cache):
  assert read_splits(catalogue.HUMANEVAL, raw, cache) == {'test': [{'id': 0} | HUMANEVAL_ROW]}


def prepared(cache):
  return sorted(path.name for path in (cache / 'prepared').iterdir())


def test_it_is_array_record_beside_nothing_else(raw, cache):
  before = sorted(raw.rglob('*'))
  read_splits(catalogue.GSM8K, raw, cache)
  (name,) = prepared(cache)
  assert name.startswith('score_gsm8k-')
  kinds = {path.name.split('.', 1)[-1] for path in (cache / 'prepared').rglob('*-of-*')}
  assert kinds == {'array_record-00000-of-00001'}
  assert sorted(raw.rglob('*')) == before, 'the data folder was written to'


def test_it_is_prepared_once_and_again_when_the_file_changes(raw, cache):
  read_splits(catalogue.GSM8K, raw, cache)
  (first,) = prepared(cache)
  marker = cache / 'prepared' / first / 'marker'
  marker.touch()
  # Another folder with the same content is the same data.
  copy = raw.rename(raw.with_name('elsewhere'))
  read_splits(catalogue.GSM8K, copy, cache)
  assert marker.exists() and prepared(cache) == [first]
  write(copy / 'gsm8k/test.jsonl', [{'question': 'new', 'answer': '#### 1'}])
  assert [row['question'] for row in read_splits(catalogue.GSM8K, copy, cache)['test']] == ['new']
  assert len(prepared(cache)) == 2


def test_what_a_killed_process_left_does_no_harm(raw, cache):
  left = cache / 'prepared' / 'preparing-killed' / 'score_gsm8k' / '1.0.0'
  left.mkdir(parents=True)
  (left / 'score_gsm8k-train.array_record-00000-of-00001').write_bytes(b'half')
  assert len(read_splits(catalogue.GSM8K, raw, cache)['train']) == 300


HARMS = {
  'empty': lambda content: b'',
  'cut': lambda content: content[: len(content) // 2],
  'flipped': lambda content: content[:99] + bytes([content[99] ^ 1]) + content[100:],
  'other text': lambda content: b'{}',
  'no text': lambda content: b'\xff\0' * 9,
  # Valid to TFDS, and the last 100 rows would be missing.
  'fewer rows': lambda content: content.replace(b'"300"', b'"200"'),
  'gone': None,
}


def test_damaged_prepared_data_is_named(raw, cache):
  """Every file in every way, or the rows come back whole."""
  whole = read_splits(catalogue.GSM8K, raw, cache)
  (folder,) = (cache / 'prepared').iterdir()
  paths = [path for path in folder.rglob('*') if path.is_file()]
  assert {path.name for path in paths} >= {'dataset_info.json', 'features.json'}
  for path in paths:
    content = path.read_bytes()
    for name, harm in HARMS.items():
      harmed = None if harm is None else harm(content)
      if harmed == content:
        continue
      path.unlink() if harmed is None else path.write_bytes(harmed)
      with pytest.raises(ValueError) as caught:
        read_splits(catalogue.GSM8K, raw, cache)
      assert f'{folder.name}: the prepared data is damaged (' in str(caught.value), (path, name)
      assert '); delete the folder, and it is made anew' in str(caught.value)
      path.write_bytes(content)
  assert read_splits(catalogue.GSM8K, raw, cache) == whole


READ = (
  'import sys\n'
  'sys.modules["torch"] = sys.modules["jax"] = None\n'
  'from score_jax.tasks.datasets import catalogue\n'
  'from score_jax.tasks.datasets.read import read_splits\n'
  'print(len(read_splits(catalogue.GSM8K, *sys.argv[1:])["train"]))\n'
  'print("tensorflow" in sys.modules)\n'
)


def test_processes_that_start_at_once_do_not_disturb_each_other(raw, cache, run_python):
  """And they do without TensorFlow, and without jax, which these processes cannot import."""
  with concurrent.futures.ThreadPoolExecutor() as threads:
    runs = [threads.submit(run_python, '-W', 'error', '-c', READ, raw, cache) for _ in range(3)]
  assert [run.result().stdout for run in runs] == ['300\nFalse\n'] * 3, runs[0].result().stderr
  assert len(prepared(cache)) == 1


def test_a_read_prints_nothing(raw, cache, capfd):
  read_splits(catalogue.MBPP, raw, cache)
  assert capfd.readouterr() == ('', '')


def test_other_bad_files_are_named(raw, cache):
  packed = raw / 'humaneval/HumanEval.jsonl.gz'
  packed.write_bytes(packed.read_bytes()[:-20])
  with pytest.raises(ValueError, match=r'HumanEval\.jsonl\.gz: is damaged or not gzipped'):
    read_splits(catalogue.HUMANEVAL, raw, cache)
  write(raw / 'mbpp/mbpp.jsonl', [mbpp_row(i) for i in range(1, 600)])
  with pytest.raises(ValueError, match=r'mbpp\.jsonl: no row has a task_id of 601 to 974'):
    read_splits(catalogue.MBPP, raw, cache)
  with pytest.raises(ValueError, match=r'programs\.jsonl: no such file; set --set .*repair_set'):
    read_splits(catalogue.MBPP_R, raw, cache)
  (raw / 'math/test.jsonl').unlink()
  (raw / 'math/test.jsonl').mkdir()
  with pytest.raises(ValueError, match=r'test\.jsonl: is a directory, not a file; check --config'):
    read_splits(catalogue.MATH, raw, cache)
  (raw / 'math/test.jsonl').rmdir()
  with pytest.raises(
    ValueError, match=r"test\.jsonl: no such file; set --config\.data\.path .*'do"
  ):
    read_splits(catalogue.MATH, raw, cache)


def test_a_file_that_cannot_be_read_is_named(raw, cache):
  (raw / 'gsm8k/test.jsonl').unlink()
  (raw / 'gsm8k/test.jsonl').symlink_to('/proc/self/mem')  # its first page is nobody's
  with pytest.raises(ValueError, match=r'test\.jsonl: cannot be read \(.*\); check --config\.data'):
    read_splits(catalogue.GSM8K, raw, cache)


def test_a_cache_that_cannot_be_written_is_named(raw, tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match=r'set --config\.data\.cache to a folder that can be'):
    read_splits(catalogue.GSM8K, raw, tmp_path / 'file')


def published_at(root, sha256=None):
  """HumanEval, as if it had been published in a folder."""
  path = 'humaneval/HumanEval.jsonl.gz'
  if sha256 is None:
    sha256 = hashlib.sha256((root / path).read_bytes()).hexdigest()
  file = catalogue.RawFile(path, (root / path).as_uri(), sha256)
  return dataclasses.replace(catalogue.HUMANEVAL, splits={'test': catalogue.Split(file)})


def test_a_download_is_checked_and_kept(raw, cache):
  dataset = published_at(raw)
  assert read_splits(dataset, 'download', cache)['test'] == [{'id': 0} | HUMANEVAL_ROW]
  # Gone from where it was published: the copy serves.
  (raw / 'humaneval/HumanEval.jsonl.gz').unlink()
  assert len(read_splits(dataset, 'download', cache)['test']) == 1
  assert [path.name for path in (cache / 'raw' / 'humaneval').iterdir()] == ['HumanEval.jsonl.gz']


def test_a_download_that_is_not_the_published_file_is_refused(raw, cache):
  with pytest.raises(ValueError, match=r'not the file that was published: \d+ bytes .*ted 00'):
    read_splits(published_at(raw, '00'), 'download', cache)
  assert not (cache / 'raw' / 'humaneval').exists()
  dataset = published_at(raw)
  (raw / 'humaneval/HumanEval.jsonl.gz').unlink()
  with pytest.raises(ValueError, match=r'cannot be downloaded .* set --config\.data\.path=DATA'):
    read_splits(dataset, 'download', cache)
  with pytest.raises(ValueError, match=r'programs\.jsonl cannot be downloaded: .*repair_set'):
    read_splits(catalogue.MBPP_R, 'download', cache)
