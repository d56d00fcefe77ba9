"""The program that builds sets like MBPP-R and evaluates on them."""

import json

# One process for all wrong starts: an import takes seconds.
WRONG_STARTS = """
import sys
from score_jax import repair_set
from score_jax.cli import program

CONFIG = ['--config=configs/stage1_sums.py', '--config.model.checkpoint=embedded']
for arguments in ([], ['--set=x', *CONFIG]):
  sys.argv = ['repair_set', *arguments]
  try:
    program.run_program(repair_set._body)
  except SystemExit as error:
    print(error.code)
"""


def test_repair_set_names_what_is_missing(run_python):
  done = run_python('-c', WRONG_STARTS)
  assert done.stdout.split() == ['2', '2'] and 'Traceback' not in done.stderr
  first, second = done.stderr.split('error: ')[1:]
  assert '--set is not set' in first and "MBPP-R is made of 'mbpp'" in second


def test_a_set_is_evaluated_from_the_command_line(run_python, data_dir, tmp_path):
  """With the small model, which knows no letters: every program stays as wrong as it was."""
  row = {'task_id': 11, 'question': 'Q.', 'tests': 'assert f()', 'program': 'def f():\n  pass'}
  lines = ''.join(json.dumps(row | {'reason': str(i)}) + '\n' for i in range(3))
  (tmp_path / 'programs.jsonl').write_text(lines)
  done = run_python(
    '-m',
    'score_jax.repair_set',
    '--mode=evaluate',
    f'--set={tmp_path}',
    f'--workdir={tmp_path / "out"}',
    '--num_problems=2',
    '--config=configs/stage1_code.py:smollm2_135m',
    '--config.model.checkpoint=embedded',
    '--config.model.preset=',
    f'--config.data.path={data_dir}',
    f'--config.data.cache={tmp_path / "cache"}',
    '--config.rollout.prompt_tokens=16',
    '--config.rollout.turn_tokens=(7,10)',
  )
  assert done.returncode == 0, done.stderr
  metrics = json.loads((tmp_path / 'out' / 'metrics.json').read_text())
  assert metrics['num_problems'] == 2 and metrics['set'] == str(tmp_path)
  assert metrics['acc_t1']['mean'] == metrics['acc_t2']['mean'] == 0
  records = (tmp_path / 'out' / 'records.jsonl').read_text().splitlines()
  assert [json.loads(record)['id'] for record in records] == [0, 1]
