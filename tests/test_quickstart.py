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
  config = tmp_path / 'config.py'
  config.write_text(
    'import dataclasses\n'
    'from score_jax.core.config import read_config\n'
    'def get_config():\n'
    f'  c = read_config("{ROOT}/configs/quickstart.py")\n'
    '  c.run.task.num_test = c.run.eval.batch = 32\n'
    '  c.run.rollout.problems_per_step = 4\n'
    '  base, *rows = c.rows\n'
    '  c.rows = (base, *(dataclasses.replace(row, num_steps=2) for row in rows))\n'
    '  return c\n'
  )
  workdir = tmp_path / 'out'
  options = (f'--config={config}', f'--workdir={workdir}', '--seed=3')
  done = run_python('-m', 'score_jax.quickstart', *options)
  assert done.returncode == 0, done.stderr
  report = json.loads((workdir / 'report.json').read_text())
  assert list(report['rows']) == ['base', 'stage1', 'stage2', 'multiturn_rl']
  for name, row in report['rows'].items():
    assert row['seed'] == 3 and row['seconds'] > 0 and row['commit'] and row['num_problems'] == 32
    for kind in ('greedy', 'sampled'):
      assert set(row[kind]) == {'acc_t1', 'acc_t2', 'delta', 'i2c', 'c2i', 'changed'}
      path = workdir / name / 'seed3' / f'eval_{kind}' / 'metrics.json'
      found = json.loads(path.read_text())
      assert row[kind] == {key: found[key] for key in row[kind]}
      for m in row[kind].values():
        assert m['low'] <= m['mean'] <= m['high']
  assert (workdir / 'training.png').stat().st_size > 10_000
  text = (workdir / 'report.md').read_text()
  assert text.count('| SCoRe | ') == 2 and 'Accuracy@t1' in text
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
