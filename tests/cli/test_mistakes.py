"""What the programs say of mistakes and of themselves, run as a user runs them."""

import re

import pytest
from forked import Server
from makers import SMALL_SUMS

PROGRAMS = {
  'main': ('config', 'workdir', 'distributed', 'dry_run'),
  'evaluate': ('run', 'which', 'num_problems', 'temperature', 'as_trained', 'config', 'workdir'),
  'export': ('run', 'which', 'format', 'dtype', 'config', 'workdir'),
  'repair_set': ('set', 'mode', 'split', 'samples', 'keep', 'run', 'num_problems', 'config'),
  'pretrain': ('config', 'workdir'),
  'quickstart': ('seed', 'config', 'workdir'),
  'replicate': ('seeds', 'rows', 'jobs', 'report_only', 'config', 'workdir'),
  'plan': ('topology', 'json', 'instruction_tokens', 'config'),
  'pipeline': ('stage1', 'stage2', 'workdir', 'distributed', 'dry_run'),
  'episodes': ('run', 'output', 'limit'),
}
# No weights are read, of the base model or of a run.
NO_MODEL = """
from score_jax.formats import weights_folder
from score_jax.runs import restoring

def fail(*_, **__):
  raise AssertionError('the model was loaded')

weights_folder.iter_params = restoring._read_leaves = fail
"""
FOR_PYTHON = re.compile(
  r'Traceback|\[Errno|\w*Path\(|ConfigDict\(|<class |object at 0x|dict_\w+\(|KeyError|the model was'
)
CODE = [
  '--config=configs/stage1_code.py',
  '--config.model.checkpoint=embedded',
  '--config.model.preset=',
]


@pytest.fixture(scope='module')
def server():
  server = Server('score_jax.planning.shapes', 'score_jax.setup.run', 'score_jax.evaluation.mbpp_r')
  yield server
  server.close()


@pytest.mark.parametrize('name', PROGRAMS)
def test_help_lists_a_program_s_own_flags(name, server):
  program = server.start(f'score_jax.{name}', '--help')
  printed = program.communicate()
  assert program.returncode == 0, printed
  assert f'python -m score_jax.{name} ' in printed  # an example
  listed = re.findall(r'^  (?:-h, )?--(\w+)\b', printed, re.MULTILINE)
  assert set(PROGRAMS[name]) <= set(listed), printed
  if name != 'pipeline':  # whose flags are argparse's
    assert 'limit' not in listed or name == 'episodes'
    assert ('temperature' in listed) == (name in ('evaluate', 'repair_set'))


def other(kind):
  """What is said of a config of another program."""
  return f'python -m score_jax.{kind} --config=configs/'


MISTAKES = [
  ('main', ['--config=configs/quickstart.py'], other('quickstart')),
  ('main', ['--config=configs/replicate_arithmetic.py'], other('replicate')),
  ('evaluate', ['--config=configs/pretrain_arithmetic.py'], other('pretrain')),
  ('export', ['--config=configs/quickstart.py', '--workdir=TMP/x'], other('quickstart')),
  ('plan', ['--config=configs/quickstart.py', '--topology=v5p:2x2x1'], other('quickstart')),
  ('replicate', ['--config=configs/stage1_math.py'], other('main')),
  ('quickstart', ['--config=configs/stage1_math.py'], other('main')),
  ('pretrain', ['--config=configs/gsm8k.py:stage1'], other('main')),
  ('main', ['--config=TMP/raises.py'], 'raises.py, line 2: there is no "x"'),
  ('main', ['--config=TMP/syntax.py'], 'syntax.py, line 1: SyntaxError'),
  ('replicate', ['--config=TMP/nothing.py'], 'nothing.py: get_config returned nothing'),
  ('quickstart', ['--config=TMP/none.py'], 'there is no config file'),
  ('pretrain', ['--config='], '--config= is empty'),
  ('export', ['--temperature=1', '--workdir=TMP/x'], 'this program reads no --temperature'),
  ('evaluate', ['--run=TMP', '--config.seed=1'], 'needs --config=FILE before it'),
  ('evaluate', ['--run=TMP/quick'], 'TMP/quick is neither a run directory'),
  ('evaluate', [*SMALL_SUMS, '--temperature=nan'], '--temperature=nan must be finite'),
  ('evaluate', [*SMALL_SUMS, '--num_problems=99999'], 'num_problems=99999, but the split has'),
  ('evaluate', [*SMALL_SUMS, '--config.rollout.prompt_tokens=1'], 'is too small for every problem'),
  ('repair_set', ['--set=TMP/file/x', *CODE, '--config.data.path=DATA'], '--set=TMP/file/x cannot'),
  (
    'repair_set',
    ['--set=TMP/quick', '--mode=evaluate', *CODE, '--config.data.path=DATA'],
    'TMP/quick/programs.jsonl: no such file',
  ),
  ('export', [*SMALL_SUMS, '--workdir=TMP/quick'], 'TMP/quick is there already'),
  ('pretrain', ['--config=configs/pretrain_arithmetic.py', '--workdir=TMP'], 'is there already'),
  ('quickstart', ['--workdir=TMP/file'], 'TMP/file is not a directory'),
  (
    'plan',
    ['--config=configs/stage2_math.py', '--topology=v5e:1x1', '--json=TMP/file/x'],
    'TMP/file',
  ),
  ('episodes', ['--run=TMP/quick', '--limit=1'], 'TMP/quick holds no episodes'),
  (
    'main',
    [*SMALL_SUMS, '--workdir=TMP/quick', '--config.train.num_steps=1'],
    'another configuration',
  ),
]


@pytest.mark.parametrize(
  ('program', 'line', 'message'), MISTAKES, ids=[f'{x[0]}{i}' for i, x in enumerate(MISTAKES)]
)
def test_a_mistake_is_told_in_words_before_a_model_is_loaded(
  program, line, message, server, tmp_path, request
):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'quick').mkdir()
  (tmp_path / 'quick' / 'config.json').write_text('{"run": {}, "seed": 7}')
  (tmp_path / 'raises.py').write_text("def get_config():\n  return {}['x']\n")
  (tmp_path / 'syntax.py').write_text('def get_config(:\n')
  (tmp_path / 'nothing.py').write_text('def get_config():\n  pass\n')
  if any('DATA' in word for word in line):
    line = [x.replace('DATA', str(request.getfixturevalue('data_dir'))) for x in line]
  line = [word.replace('TMP', str(tmp_path)) for word in line]
  started = server.start(f'score_jax.{program}', *line, prelude=NO_MODEL)
  printed = started.communicate()
  assert started.returncode == 2, printed
  assert message.replace('TMP', str(tmp_path)) in printed
  assert not FOR_PYTHON.search(printed) and len(printed.splitlines()) < 30, printed
