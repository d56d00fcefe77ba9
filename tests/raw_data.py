"""Small files of every data set, as they are published."""

import gzip
import json

MATH_ROWS = [
  {'problem': 'é $1+1$?\r\n\u2028 \U0001f600\0', 'answer': '2', 'level': 3, 'extra': [1]},
  {'problem': 'b', 'answer': r'\frac{1}{2}', 'level': None, 'subject': 'Algebra'},
  {'problem': '', 'answer': '', 'level': 'Level ?'},
]


GSM8K_ROWS = [{'question': f'q{i}', 'answer': f'work #### {i}'} for i in range(300)]


HUMANEVAL_ROW = {
  'task_id': 'HumanEval/0',
  'prompt': 'def f(x):\n    """Doubles."""\n',
  'entry_point': 'f',
  'canonical_solution': '    return 2 * x\n',
  'test': 'def check(candidate):\n    assert candidate(1) == 2\n',
}


def mbpp_row(number, **changes):
  return {
    'task_id': number,
    'text': f'Task {number}.',
    'code': 'def f():\r\n  return 1',
    'test_setup_code': '',
    'test_list': [f'assert f() == {i}' for i in range(number % 3 + 1)],
    'challenge_test_list': [],
  } | changes


def write(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  content = ''.join(json.dumps(row) + '\n' for row in rows).encode()
  path.write_bytes(gzip.compress(content) if path.suffix == '.gz' else content)


def write_all(root):
  """A small data folder of every data set."""
  write(root / 'math/train.jsonl', MATH_ROWS)
  write(root / 'math/test.jsonl', MATH_ROWS[:1])
  write(root / 'gsm8k/train.jsonl', GSM8K_ROWS)
  write(root / 'gsm8k/test.jsonl', GSM8K_ROWS[:2])
  write(root / 'mbpp/mbpp.jsonl', [mbpp_row(i) for i in range(1, 975)])
  write(root / 'humaneval/HumanEval.jsonl.gz', [HUMANEVAL_ROW])
  return root
