"""The script for an accelerator: each part is run and leaves its result, also where others fail.

Stand-ins for Python and `timeout` write down what they are asked.
"""

import argparse
import os
import runpy
import shutil
import subprocess
import sys

import pytest
from makers import ROOT

from score_jax.core.config import leaves, read_config

PYTHON = r"""#!/bin/bash
printf '%s\t' "$@" | sed 's/\t$/\n/' >>"$CALLS/calls"
[[ $1 != -c ]] || exit "$NO_PEER"
[[ $* != *${FAILS:-nothing}* ]] || { echo 'it is ill' >&2 && exit 3; }
echo "a table of $*"
"""
TIMEOUT = '#!/bin/bash\necho "$3" >>"$CALLS/limits"; shift 3; exec "$@"\n'
PARTS = ['decode', 'update', 'full_rows', 'real_lengths']
TRAINED = ['stage1', 'stage2', 'multiturn_rl', 'training']


@pytest.fixture
def run(tmp_path):
  """Runs the script; gives its status, its results by part, its summary, calls and limits."""
  folder = tmp_path / 'bin'
  folder.mkdir()
  for name, text in (('python', PYTHON), ('timeout', TIMEOUT)):
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
  (tmp_path / 'weights.gguf').touch()
  defaults = {
    'PATH': f'{folder}:{os.environ["PATH"]}',
    'SCORE_PYTHON': 'python',
    'CALLS': str(tmp_path),
    'NO_PEER': '0',
    'SCORE_COMMIT': '1234abc',
    'SCORE_WEIGHTS': str(tmp_path / 'weights.gguf'),
  }

  def run(*arguments, **environment):
    for name in ('calls', 'limits'):
      (tmp_path / name).write_text('')
    shutil.rmtree(tmp_path / 'out', ignore_errors=True)
    command = [ROOT / 'benchmarks' / 'on_accelerator.sh', *arguments]
    if 'OUT' not in environment:
      command.append(str(tmp_path / 'out'))
    done = subprocess.run(command, env=defaults | environment, capture_output=True, text=True)
    found = {path.stem: path.read_text() for path in (tmp_path / 'out').glob('*.md')}
    commit, _, _, _, *lines = found.pop('summary').splitlines()
    assert commit == 'commit 1234abc'
    rows = [line.strip('| ').split(' | ') for line in lines]
    calls = [line.split('\t') for line in (tmp_path / 'calls').read_text().splitlines()]
    limits = [int(line) for line in (tmp_path / 'limits').read_text().split()]
    return done.returncode, found, {row[0]: row[1] for row in rows}, calls, limits

  return run


def test_every_part_leaves_its_result_in_time(run):
  status, found, summary, calls, limits = run()
  assert status == 0 and sorted(found) == sorted(PARTS + TRAINED)
  assert all(text.startswith('a table of ') for text in found.values())
  assert summary == dict.fromkeys(PARTS + TRAINED, 'done')
  # Multi-turn RL runs beside Stage II, which has as long.
  assert len(limits) == 8 and sum(limits) - 70 <= 8 * 60
  second = next(call for call in calls if 'configs/stage2_sums.py' in ' '.join(call))
  first = next(call for call in calls if 'configs/stage1_sums.py' in ' '.join(call))
  folder = next(word for word in first if word.startswith('--workdir=')).partition('=')[2]
  assert f'--config.init.path={folder}' in second


def test_a_part_that_fails_stops_no_other(run, tmp_path):
  status, found, summary, *_ = run('--tiny', FAILS='train_mfu')
  assert status == 1 and sorted(found) == sorted(PARTS + TRAINED)
  assert summary == dict.fromkeys(PARTS + TRAINED, 'done') | {'update': 'failed with status 3'}
  assert (
    'failed with status 3; its last words' in found['update'] and 'it is ill' in found['update']
  )
  status, found, summary, *_ = run('--tiny', FAILS='score_jax.main')
  assert status == 3 and summary['training'] == 'done'


def test_what_is_not_there_is_said(run, tmp_path):
  lacking = dict(NO_PEER='1', SCORE_WEIGHTS='', SCORE_WHEELS=str(tmp_path))
  status, found, summary, calls, _ = run(**lacking, OUT=str(tmp_path / 'out'))
  assert status == 0 and sorted(found) == ['decode', 'real_lengths', 'update', 'wheels']
  assert summary['full_rows'] == 'not run: there is no Tunix'
  assert summary['training'] == 'not run: SCORE_WEIGHTS is not set'
  assert calls[0][:3] == ['-m', 'pip', 'install'] and '--no-index' in calls[0]
  assert not any('peer' in word for call in calls for word in call)


class ParsedError(Exception):
  """The command line was read: what follows is not run."""


@pytest.mark.parametrize('tiny', [(), ('--tiny',)])
def test_every_flag_exists(run, monkeypatch, tiny):
  *_, calls, _ = run(*tiny)
  monkeypatch.syspath_prepend(ROOT / 'benchmarks')
  parse = argparse.ArgumentParser.parse_args

  def parse_only(parser, arguments=None):
    parse(parser, arguments)
    raise ParsedError

  monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_only)
  seen = set()
  for name, *arguments in calls:
    if name.startswith('benchmarks/'):
      monkeypatch.setattr(sys, 'argv', [name, *arguments])
      with pytest.raises(ParsedError):
        runpy.run_path(str(ROOT / name), run_name='__main__')
    elif arguments[0] == 'score_jax.main':
      given = dict(word.removeprefix('--').split('=', 1) for word in arguments[1:])
      keys = dict(leaves(read_config(str(ROOT / given.pop('config')))))
      assert given.keys() - keys.keys() == {'workdir'}
    seen.add(arguments[0] if name == '-m' else name)
  assert seen == {'-c', 'score_jax.main'} | {
    f'benchmarks/{name}.py'
    for name in ('decode_roofline', 'train_mfu', 'tunix_rollout', 'real_lengths', 'learning')
  }


def test_what_runs_have_learnt(monkeypatch, capsys, tmp_path):
  """Four updates: the first third and the last are two each."""
  monkeypatch.syspath_prepend(ROOT / 'benchmarks')
  import learning

  rewards = [(0.0, 0.2), (0.2, 0.4), (0.4, 0.4), (0.8, 0.6)]
  records = [
    {'train/reward_t1': t1, 'train/reward_t2': t2, 'time/step_s': 9.0 - i}
    for i, (t1, t2) in enumerate(rewards)
  ]
  monkeypatch.setattr(learning, 'read_metrics', lambda run: records if run.name == 'a' else [])
  monkeypatch.setattr(sys, 'argv', ['learning.py', 'x/a', 'x/b'])
  learning.main()
  table = capsys.readouterr().out.splitlines()[-2:]
  assert table == [
    '| a | 4 | 0.100 | 0.600 | 0.300 | 0.500 | 7.00 |',
    '| b | no update ended |  |  |  |  |  |',
  ]
