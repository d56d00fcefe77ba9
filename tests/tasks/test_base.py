"""Problems, JSON-lines files, and sums as text."""

import dataclasses
import gzip
import itertools
import json
import subprocess
import sys

import pytest

from score_jax.core import jsonl
from score_jax.tasks import base, sums


def _task(train, test):
  return base.Task(
    name='t',
    train=[base.Problem(i, q, '') for i, q in enumerate(train)],
    test=[base.Problem(i, q, '') for i, q in enumerate(test)],
    prompt=str,
    instruction='',
    grade=lambda problems, texts: [],
    final=lambda text: text,
    close=lambda: None,
  )


def test_check_disjoint_names_both_problems():
  task = _task(['What is  1+1?', 'b', 'b'], ['c', 'what is 1+1?\n', 'B'])
  found = [(test.id, train.id) for test, train in base.check_disjoint(task)]
  assert found == [(1, 0), (2, 1)]
  assert base.check_disjoint(_task(['z^4 + z^2'], ['z^4 - z^2'])) == []


def test_values_are_frozen():
  with pytest.raises(dataclasses.FrozenInstanceError):
    base.Verdict(1.0, 'correct').reward = 0.0


def test_the_tasks_import_no_jax():
  code = (
    'import sys\n'
    'from score_jax.tasks import base, gsm8k, humaneval, math, mbpp_r, sums\n'
    'from score_jax.tasks.workers import pool\n'
    'heavy = {"jax", "sympy", "tensorflow", "tensorflow_datasets", "array_record"}\n'
    'print(sorted(heavy & set(sys.modules)))'
  )
  printed = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert printed.stdout.strip() == '[]'


# JSON lines.


def _write(path, content: bytes):
  path.write_bytes(content)
  return path


def test_rows_are_read_in_order_with_all_their_fields(tmp_path):
  rows = [{'question': 'é?', 'extra': 1}, {'question': '日本\u2028', 'extra': None}]
  lines = [json.dumps(row, ensure_ascii=False) for row in rows]
  path = _write(tmp_path / 'a.jsonl', ('\r\n'.join(lines) + '\n\n').encode())
  assert jsonl.read_jsonl(path, ['question']) == rows


@pytest.mark.parametrize(
  'line, message',
  [
    (b'{"q": "a"', r'a\.jsonl:3: not JSON: '),
    (b'[1]', r'a\.jsonl:3: a JSON object was expected, found list'),
    (b'{"p": "a"}', r"a\.jsonl:3: missing field 'q'; the row has \['p'\]"),
    (b'{"q": 12}', r"a\.jsonl:3: field 'q' should be text, found int"),
    (b'{"q": "\xff"}', r'a\.jsonl:3: not UTF-8: byte 0xff at column 8'),
    (b'[' * 100_000, r'a\.jsonl:3: not JSON: '),
  ],
)
def test_a_broken_line_is_named(tmp_path, line, message):
  # The second line is blank and counts, as it does in an editor.
  path = _write(tmp_path / 'a.jsonl', b'{"q": "fine"}\n\n' + line + b'\n{"q": "fine"}\n')
  with pytest.raises(ValueError, match=message):
    jsonl.read_jsonl(path, ['q'])


@pytest.mark.parametrize(
  'row, message',
  [
    ({'n': 1, 'texts': []}, ''),
    ({'n': -(10**30), 'texts': ['a', '']}, ''),
    ({'n': True, 'texts': []}, "field 'n' should be a whole number, found bool"),
    ({'n': 1.0, 'texts': []}, "field 'n' should be a whole number, found float"),
    ({'n': 1, 'texts': 'ab'}, "field 'texts' should be a list of texts, found str"),
    ({'n': 1, 'texts': ['a', 1]}, "field 'texts' should be a list of texts, found list"),
  ],
)
def test_fields_have_their_kinds_also_in_gzipped_files(tmp_path, row, message):
  path = _write(tmp_path / 'a.jsonl.gz', gzip.compress(json.dumps(row).encode()))
  if not message:
    assert jsonl.read_located(path, {'n': int, 'texts': list}) == [(f'{path}:1', row)]
    return
  with pytest.raises(ValueError, match=message):
    jsonl.read_jsonl(path, {'n': int, 'texts': list})


def test_a_number_of_too_many_digits_is_named(tmp_path):
  path = _write(tmp_path / 'a.jsonl', b'{"n": ' + b'1' * 5000 + b'}')
  with pytest.raises(ValueError, match=r'a\.jsonl:1: not JSON'):
    jsonl.read_jsonl(path, {'n': int})


@pytest.mark.parametrize('content', [b'', b'\n \n'])
def test_an_empty_file_is_an_error(tmp_path, content):
  with pytest.raises(ValueError, match=r'a\.jsonl: holds no rows'):
    jsonl.read_jsonl(_write(tmp_path / 'a.jsonl', content), ['q'])


def test_a_missing_file_names_the_flag(tmp_path):
  with pytest.raises(ValueError, match=r'none\.jsonl: no such file; set --config\.data\.path'):
    jsonl.read_jsonl(tmp_path / 'none.jsonl', ['q'])
  with pytest.raises(ValueError, match='is a directory'):
    jsonl.read_jsonl(tmp_path, ['q'])


# Sums.


def _addends(problem):
  words = problem.question.removeprefix('What is ').removesuffix('?').split(' + ')
  return tuple(int(word) for word in words)


def test_sums_are_right_distinct_and_split_by_unordered_pair():
  task = sums.load_arithmetic_text(low=2, high=20, num_train=250, num_test=100, seed=3)
  train, test = [list(map(_addends, split)) for split in (task.train, task.test)]
  assert (len(set(train)), len(set(test))) == (250, 100)
  assert [p.id for p in task.train] == list(range(250))
  assert not {frozenset(pair) for pair in train} & {frozenset(pair) for pair in test}
  assert {addend for pair in train for addend in pair} == set(range(2, 21))
  for problem in itertools.chain(task.train, task.test):
    assert sum(_addends(problem)) == int(problem.answer)


def test_sums_are_the_same_for_the_same_seed_only():
  first, again, other = (
    sums.load_arithmetic_text(seed=seed, num_train=20, num_test=5) for seed in (0, 0, 1)
  )
  assert first.train == again.train and first.test == again.test
  assert first.train != other.train


def test_every_sum_of_a_small_range_can_be_asked_for():
  # 3 x 3 ordered pairs; how many are left for training depends on the pairs drawn for the test.
  for seed in range(5):
    task = sums.load_arithmetic_text(low=0, high=2, num_train=7, num_test=1, seed=seed)
    asked = [_addends(p) for p in (*task.train, *task.test)]
    assert len(set(asked)) == 8 and set(asked) <= set(itertools.product(range(3), repeat=2))


@pytest.mark.parametrize(
  'kwargs, message',
  [
    ({'num_train': 1000}, r'num_train=1000, but only \d+ problems are left: low=2..high=20'),
    ({'num_test': 400}, r'num_test=400, but only 361 problems are left'),
    ({'low': 5, 'high': 4}, r'low=5 must not be above high=4'),
    ({'style': 'poem'}, r"style='poem' is unknown"),
  ],
)
def test_impossible_sums(kwargs, message):
  with pytest.raises(ValueError, match=message):
    sums.load_arithmetic_text(**kwargs)


def test_the_styles():
  plain, paper = (
    sums.load_arithmetic_text(style=style, num_train=2, num_test=1) for style in ('plain', 'math')
  )
  problem = base.Problem(0, 'What is 3 + 4?', '7')
  assert plain.prompt(problem) == 'What is 3 + 4?'
  assert plain.instruction.endswith('Only output the final solution!')
  assert paper.prompt(problem).startswith('You are a math expert.')
  assert paper.instruction.endswith('I hope it is correct."')


@pytest.mark.parametrize(
  'reference, text, reason',
  [
    ('7', '7', 'correct'),
    ('7', '3 + 4 = 7.', 'correct'),
    ('7', 'The sum of 3 and 4 is **7**!', 'correct'),
    ('7', r'$\boxed{7}$, and not 8', 'correct'),
    ('7', 'The final answer is $x = 7$. I hope it is correct. 8', 'correct'),
    ('1019', '1,000 + 19 = 1,019', 'correct'),
    ('7', '7.0', 'correct'),
    ('-7', '3 + \u221210 = \u22127', 'correct'),
    ('0', '5-5=0', 'correct'),
    ('7', '07', 'correct'),
    ('7', '7.5', 'wrong'),
    ('7', '7 or 8', 'wrong'),
    ('7', '17', 'wrong'),
    ('7', '-7', 'wrong'),
    ('7', '77', 'wrong'),
    ('7', '3 + 4', 'wrong'),
    ('7', r'7, so \boxed{8}', 'wrong'),
    ('7', r'7, so \boxed{?}', 'wrong'),
    ('5', '3.5', 'wrong'),
    ('7', '7' * 10_000, 'wrong'),
    ('7', 'seven', 'no_answer'),
    ('7', '\ud800\0', 'no_answer'),
    ('7', ' 7' * 20_000, 'too_long'),
  ],
)
def test_grading_of_sums(reference, text, reason):
  (verdict,) = sums.grade_integers([base.Problem(0, '?', reference)], [text])
  assert verdict == base.Verdict(float(reason == 'correct'), reason)


def test_one_text_per_problem():
  with pytest.raises(ValueError, match='1 problems but 2 texts'):
    sums.grade_integers([base.Problem(0, '?', '7')], ['7', '7'])


# Overlap.


def test_training_problems_that_are_evaluation_problems_are_left_out(caplog):
  task = _task(['a', 'B', 'c', ' b'], ['d', 'b'])
  less = base.without_overlap(task)
  assert [problem.id for problem in less.train] == [0, 2]
  assert less.test == task.test
  assert 'task t: 2 of 4 training problems are left out' in caplog.text
  assert base.without_overlap(less) is less
  # What makes two problems the same is the task's to say.
  by_letter = dataclasses.replace(_task(['a1', 'b1'], ['b2']), statement=lambda p: p.question[0])
  assert [problem.id for problem in base.without_overlap(by_letter).train] == [0]
