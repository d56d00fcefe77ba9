"""What is refused of a row of a data set, and that its file and line are named."""

import gzip
import json

import pytest
from raw_data import HUMANEVAL_ROW, mbpp_row, write

from score_jax.tasks.datasets import catalogue
from score_jax.tasks.datasets.read import read_splits


@pytest.mark.parametrize(
  ('dataset', 'path', 'line', 'message'),
  [
    (catalogue.MATH, 'math/train.jsonl', '{"problem": "a"}', "missing field 'answer'"),
    (catalogue.MATH, 'math/test.jsonl', '{"problem": "a"', 'not JSON'),
    (
      catalogue.MATH,
      'math/test.jsonl',
      r'{"problem": "\ud83d", "answer": "a"}',
      "field 'problem' cannot be written as UTF-8",
    ),
    (
      catalogue.MATH,
      'math/train.jsonl',
      '{"problem": "a", "answer": "1", "answer": "2"}',
      "not JSON: the key 'answer' stands there 2 times",
    ),
    (catalogue.GSM8K, 'gsm8k/test.jsonl', '{"question": "a", "answer": "7"}', "no '####'"),
    *(
      (
        catalogue.GSM8K,
        'gsm8k/train.jsonl',
        json.dumps({'question': 'a', 'answer': f'work ####{number}'}),
        f'a number is expected behind the last ####, found {number.strip()!r}',
      )
      for number in ('', ' ', ' n/a', ' 1,23', ' 5 apples', ' 1.', ' $5')
    ),
    (
      catalogue.GSM8K,
      'gsm8k/test.jsonl',
      '{"question": " \\n", "answer": "#### 7"}',
      "field 'question' is empty",
    ),
    (
      catalogue.MBPP,
      'mbpp/mbpp.jsonl',
      json.dumps(mbpp_row(5, test_list=['assert f() == 1', ' '])),
      'a test of test_list is empty',
    ),
    (
      catalogue.HUMANEVAL,
      'humaneval/HumanEval.jsonl.gz',
      json.dumps(HUMANEVAL_ROW | {'test': 'METADATA = {}'}),
      "the test has no function 'check'",
    ),
    (
      catalogue.MBPP,
      'mbpp/mbpp.jsonl',
      json.dumps(mbpp_row(5, test_list='assert f()')),
      "field 'test_list' should be a list of texts, found str",
    ),
    (
      catalogue.MBPP,
      'mbpp/mbpp.jsonl',
      json.dumps(mbpp_row(5, test_list=['assert f( == 1'])),
      "field 'test_list': the tests do not parse",
    ),
    (
      catalogue.HUMANEVAL,
      'humaneval/HumanEval.jsonl.gz',
      json.dumps(HUMANEVAL_ROW | {'test': 'def check(candidate):\n  pass'}),
      "field 'test': the tests have no assert",
    ),
    (
      catalogue.HUMANEVAL,
      'humaneval/HumanEval.jsonl.gz',
      json.dumps(HUMANEVAL_ROW | {'prompt': 'def f(x):\n    """Doubles.'}),
      "field 'prompt' is no Python",
    ),
    (catalogue.HUMANEVAL, 'humaneval/HumanEval.jsonl.gz', json.dumps(HUMANEVAL_ROW), 'task_id Hum'),
    (
      catalogue.MBPP,
      'mbpp/mbpp.jsonl',
      json.dumps(mbpp_row(5, task_id='5')),
      "field 'task_id' should be a whole number, found str",
    ),
    (
      catalogue.MBPP,
      'mbpp/mbpp.jsonl',
      json.dumps(mbpp_row(5, test_list=[])),
      'the test_list is empty',
    ),
    (
      catalogue.HUMANEVAL,
      'humaneval/HumanEval.jsonl.gz',
      json.dumps(HUMANEVAL_ROW | {'entry_point': 'g'}),
      "the prompt has no function 'g'",
    ),
  ],
)
def test_a_broken_line_is_named(raw, cache, dataset, path, line, message):
  content = (raw / path).read_bytes()
  is_packed = path.endswith('.gz')
  # As the second line; the third is fine again.
  first, _, rest = (gzip.decompress(content) if is_packed else content).partition(b'\n')
  content = b'\n'.join([first, line.encode(), rest or first])
  (raw / path).write_bytes(gzip.compress(content) if is_packed else content)
  with pytest.raises(ValueError) as caught:
    read_splits(dataset, raw, cache)
  assert f'{path}:2: {message}' in str(caught.value)
  assert list((cache / 'prepared').iterdir()) == []


def test_a_task_id_that_stands_there_twice_is_named(raw, cache):
  path = raw / 'mbpp/mbpp.jsonl'
  write(path, [mbpp_row(i) for i in (*range(1, 975), 601)])
  with pytest.raises(ValueError, match=r'mbpp\.jsonl:975: task_id 601 stands at .*jsonl:601 alr'):
    read_splits(catalogue.MBPP, raw, cache)


def test_a_number_of_any_size_is_named(tmp_path, cache):
  row = {'task_id': 10**400, 'question': 'q', 'tests': 't', 'program': 'p', 'reason': 'wrong'}
  write(tmp_path / 'programs.jsonl', [row])
  with pytest.raises(ValueError, match=r"programs\.jsonl:1: field 'task_id' does not fit 64 bits"):
    read_splits(catalogue.MBPP_R, tmp_path, cache)


def test_references_of_gsm8k_are_numbers_of_any_form(raw, cache):
  numbers = [' 1,234,567', ' -5', '0.25', ' 1000 ']
  write(raw / 'gsm8k/test.jsonl', [{'question': 'q', 'answer': f'####{n}'} for n in numbers])
  assert len(read_splits(catalogue.GSM8K, raw, cache)['test']) == 4
