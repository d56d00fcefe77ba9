"""The quickstart as a user runs it, with few steps."""

import json

from makers import ROOT


def test_a_quickstart_of_few_steps_reports_every_row(run_python, tmp_path):
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
  command = ('-m', 'score_jax.quickstart', f'--config={config}', f'--workdir={workdir}', '--seed=3')
  done = run_python(*command)
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
  again = run_python(*command)
  assert again.returncode == 0
  assert json.loads((workdir / 'report.json').read_text()) == report
