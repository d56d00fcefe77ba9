"""The quickstart as a user runs it, with few steps."""

import json

import pytest
from etils import epath
from makers import ROOT

from score_jax.core.config import read_config
from score_jax.replication.one_row import run_rows
from score_jax.replication.report import write_short_report
from score_jax.replication.rows import check_workdir, read_rows
from score_jax.setup import run as setup_run


def test_a_quickstart_of_few_steps_reports_every_row(run_python, tmp_path, monkeypatch):
  config = tmp_path / 'config.py'  # without the ablation, which is no other kind of row
  config.write_text(
    'import dataclasses\n'
    'from score_jax.core.config import read_config\n'
    'def get_config():\n'
    f'  c = read_config("{ROOT}/configs/quickstart.py")\n'
    '  c.run.task.num_test = c.run.eval.batch = 32\n'
    '  c.run.rollout.problems_per_step = 4\n'
    '  base, *rows = (row for row in c.rows if row.name != "no_bonus")\n'
    '  c.rows = (base, *(dataclasses.replace(row, num_steps=2) for row in rows))\n'
    '  return c\n'
  )
  workdir = tmp_path / 'out'
  options = (f'--config={config}', f'--workdir={workdir}', '--seed=3')
  done = run_python('-m', 'score_jax.quickstart', *options)
  assert done.returncode == 0, done.stderr
  report = json.loads((workdir / 'report.json').read_text())
  own = ('updates', 'updates_with_start', 'episodes', 'episodes_with_start')
  assert {name: [row[key] for key in own] for name, row in report['rows'].items()} == {
    'base': [0, 0, 0, 0],
    'stage1': [2, 2, 64, 64],  # of 4 problems with 8 samples
    'stage2': [2, 4, 64, 128],
    'multiturn_rl': [2, 2, 64, 64],
  }
  keys = {'acc_t1', 'acc_t2', 'delta', 'i2c', 'c2i', 'changed'}
  for name, row in report['rows'].items():
    assert row['seed'] == 3 and row['seconds'] > 0 and row['commit'] and row['num_problems'] == 32
    assert row['seeds'] == [3]
    is_trained = [row[f'changed_{end}'] is not None for end in ('first', 'last', 'peak')]
    assert is_trained == [name != 'base'] * 3
    for kind in ('greedy', 'sampled', 'train'):
      assert set(row[kind]) == keys | {'e_minus', 'e_plus', 'i2c_truncated'}
      path = workdir / name / 'seed3' / f'eval_{kind}' / 'metrics.json'
      found = json.loads(path.read_text())
      assert row[kind] == {key: found[key] for key in row[kind]}
      for m in row[kind].values():
        assert m.get('denominator') == 0 or m['low'] <= m['mean'] <= m['high']
  assert (workdir / 'training.png').stat().st_size > 10_000
  text = (workdir / 'report.md').read_text()
  assert text.count('| SCoRe | ') == 4 and 'Accuracy@t1' in text
  told = (
    'SCoRe (`stage2`): 2 updates, 64 episodes, from `stage1`; with what it starts from 4 updates'
  )
  assert told in text
  assert text.count("**: SCoRe's Δ(t1,t2) above that of “") == 2
  # A second start finds everything done and only writes the report again.
  again = read_config(str(config))
  again.run.seed = 3
  rows, there = list(read_rows(again).values()), epath.Path(workdir)
  monkeypatch.setattr(setup_run, 'prepare', lambda run: pytest.fail('a row was run again'))
  check_workdir(there, again, rows)
  run_rows(again, [(row, 3) for row in rows], there, {})
  (workdir / 'report.json').unlink()
  write_short_report(there, rows, 3)
  assert json.loads((workdir / 'report.json').read_text()) == report
