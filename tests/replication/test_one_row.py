"""One row of a replication in this process, and the whole command as a user runs it."""

import dataclasses
import json
import os
import pathlib
import re
import runpy
import signal
import subprocess
import sys
import time

import pytest
from etils import epath
from makers import ROOT

from score_jax import replicate
from score_jax.evaluation.protocol import make_prompts
from score_jax.replication.one_row import base_first_answers, run_row
from score_jax.replication.rows import read_rows, row_config, row_identity, shared_identity
from score_jax.runs.identity import check_or_write_config
from score_jax.runs.metrics import read_metrics
from score_jax.setup import run as setup_run
from score_jax.setup.policy import Policy

CONFIG = ROOT / 'configs' / 'replicate_arithmetic.py'
NUM_STEPS = 15

TINY = """
import runpy
from ml_collections import ConfigDict

def get_config():
  c = runpy.run_path({config!r})['get_config']()
  c.run.task.num_train, c.run.task.num_test = 100, 128
  c.run.rollout.problems_per_step, c.run.rollout.samples_per_problem = 4, 4
  c.run.rollout.turn_tokens = (3, 6)
  c.run.model.scan_unroll = 1
  c.run.train.length_bucket = 16
  c.run.train.checkpoint_every_steps = 1
  c.run.eval.num_problems = c.run.eval.batch = 64  # one shape for all
  c.num_vote_problems, c.num_turns = 4, 3
  for row in c.rows:
    row.num_steps = min(row.num_steps, {steps})
  return c
"""


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
  """The shipped config with little to do; turn 1 has room for an answer at once and no work."""
  path = tmp_path_factory.mktemp('tiny') / 'config.py'
  path.write_text(TINY.format(config=str(CONFIG), steps=NUM_STEPS))
  return path


def records(folder, kind: str) -> list[dict]:
  return [json.loads(s) for s in (folder / f'eval_{kind}/records.jsonl').read_text().splitlines()]


@pytest.fixture(scope='module')
def base_row(tiny, tmp_path_factory):
  """The row `base`, really run here, with every evaluation."""
  config = runpy.run_path(str(tiny))['get_config']()
  row, workdir = read_rows(config)['base'], epath.Path(tmp_path_factory.mktemp('replication'))
  about = {'commit': 'abc', 'hardware': 'some'}
  run_row(config, row, 0, workdir, about)
  return config, row, workdir, about


def test_files_of_a_row(base_row):
  _, _, workdir, about = base_row
  folder = workdir / 'base' / 'seed0'
  told = json.loads((folder / 'row.json').read_text())
  assert {k: told[k] for k in ('row', 'seed', *about)} == {'row': 'base', 'seed': 0} | about
  assert told['num_problems'] == 64 and told['seconds'] >= told['trained_s'] > 0
  for kind, num_turns in {'greedy': 2, 'sampled': 2, 'fixed': 2, 'turns': 3}.items():
    found = records(folder, kind)
    assert [r['id'] for r in found] == [2 * i for i in range(64)]  # evenly over the split
    for key in ('answers', 'finals', 'rewards', 'reasons', 'tokens', 'truncated'):
      assert {len(r[key]) for r in found} == {num_turns}, (kind, key)
    metrics = json.loads((folder / f'eval_{kind}/metrics.json').read_text())
    assert metrics['temperature'] == (1.0 if kind == 'sampled' else 0.0)
    assert (metrics['row'], metrics['seed'], metrics['commit']) == ('base', 0, 'abc')
    mean = sum(r['rewards'][1] for r in found) / 64
    assert metrics['acc_t2']['mean'] == pytest.approx(mean)
  assert {
    kind: [r['answers'][:2] for r in records(folder, kind)] for kind in ('greedy', 'turns')
  } == dict.fromkeys(('greedy', 'turns'), [r['answers'] for r in records(folder, 'greedy')])


def test_fixed_first_answers_are_the_bases_samples(base_row):
  config, row, workdir, _ = base_row
  folder = workdir / 'base' / 'seed0'
  sampled, fixed = records(folder, 'sampled'), records(folder, 'fixed')
  for key in ('answers', 'finals', 'rewards', 'tokens', 'truncated'):
    assert [r[key][0] for r in sampled] == [r[key][0] for r in fixed], key
  assert {r['truncated'][0] for r in sampled} == {True, False}, 'a case of each is wanted'
  greedy = records(folder, 'greedy')
  assert [r['answers'][0] for r in greedy] != [r['answers'][0] for r in sampled]

  setup = setup_run.prepare(row_config(config, row, 0, workdir))
  try:
    prompts = make_prompts(Policy.of_base(setup.config, setup.base), setup.task, 64)
    given = base_first_answers(folder, prompts, setup)
  finally:
    setup.task.close()
  (end,) = setup.base.tokenizer.end_of_turn_ids
  for ids, record in zip(given, sampled, strict=True):
    assert len(ids) == record['tokens'][0]
    assert (end in ids) is (not record['truncated'][0])
    assert setup.base.tokenizer.decode([i for i in ids if i != end]) == record['answers'][0]


def test_votes_of_a_row(base_row):
  _, _, workdir, _ = base_row
  path = workdir / 'base' / 'seed0' / 'votes.jsonl'
  votes = [json.loads(line) for line in path.read_text().splitlines()]
  terms = {r['id']: re.findall(r'\d', r['question']) for r in records(path.parent, 'greedy')}
  assert [v['id'] for v in votes] == [32 * i for i in range(4)]
  for vote in votes:
    assert vote.keys() == {'id', 'level', 'parallel', 'sequential'}
    assert {k: len(v) for k, v in vote['parallel'].items()} == {'finals': 32, 'rewards': 32}
    assert {k: len(v) for k, v in vote['sequential'].items()} == dict.fromkeys(
      ('first_finals', 'first_rewards', 'finals', 'rewards'), 16
    )
    answer = sum(map(int, terms[vote['id']])) % 10
    for kind, key in (('parallel', ''), ('sequential', 'first_'), ('sequential', '')):
      finals, rewards = vote[kind][f'{key}finals'], vote[kind][f'{key}rewards']
      assert [float(final == str(answer)) for final in finals] == rewards
  # Each sample has a key of its own, whether by itself or the first of a pair.
  alone = [v['parallel']['finals'] for v in votes]
  first = [v['sequential']['first_finals'] for v in votes]
  assert all(len(set(finals)) > 1 for finals in alone)
  assert [f[:16] for f in alone] != first != [f[16:] for f in alone]


def test_a_finished_row_is_left_alone_and_a_cut_one_goes_on(base_row, monkeypatch):
  config, row, workdir, about = base_row
  folder = workdir / 'base' / 'seed0'

  def times():
    return {str(p): p.stat().st_mtime_ns for p in pathlib.Path(folder).rglob('*') if p.is_file()}

  before, vote_text = times(), (folder / 'votes.jsonl').read_text()
  with monkeypatch.context() as patch:
    patch.setattr(setup_run, 'prepare', lambda run: pytest.fail('a finished row was run again'))
    run_row(config, row, 0, workdir, about)
  assert times() == before
  for name in ('row.json', 'votes.jsonl'):
    (folder / name).unlink()
  run_row(config, row, 0, workdir, about)
  after = times()
  changed = {pathlib.Path(p).name for p in after if after[p] != before[p]}
  assert changed == {'row.json', 'votes.jsonl'}
  assert (folder / 'votes.jsonl').read_text() == vote_text


def test_a_row_that_is_another_is_refused(tiny, base_row, monkeypatch):
  config, row, _, _ = base_row
  workdir = epath.Path(tiny.parent / 'changed')
  check_or_write_config(workdir, row_identity(row))
  check_or_write_config(workdir, row_identity(dataclasses.replace(row, title='other')))
  again = dataclasses.replace(row, changes=(*row.changes, ('eval.batch', 8)), num_steps=1)
  with pytest.raises(ValueError, match='num_steps: 0 in the run, 1 now'):
    check_or_write_config(workdir, row_identity(again))
  for number, other in enumerate(read_rows(config).values()):
    check_or_write_config(workdir / str(number), row_identity(other))
  check_or_write_config(workdir / 'all', shared_identity(config))
  argv = ['replicate', '--seeds=2', '--rows', 'a,b', '--jobs=3', '--workdir', 'x', '--config.a=1']
  monkeypatch.setattr(replicate.sys, 'argv', argv)
  assert replicate._command('a', epath.Path('/x'))[3:] == [
    *('--seeds=2', '--config.a=1', '--workdir=/x', '--one_row=a')
  ]


@pytest.fixture(scope='module')
def short(tiny):
  """The same with fewer evaluations: compiling them is most of the time."""
  path = tiny.parent / 'short.py'
  path.write_text(
    tiny.read_text().replace('  return c', "    row.evaluations = ('sampled', 'fixed')\n  return c")
  )
  return path


@pytest.fixture
def start(short, tmp_path):
  """Starts the command, in a session of its own: whoever is left of it can be found."""
  processes = []

  def begin(*args) -> subprocess.Popen:
    names = ('--rows', 'base,stage1,score')
    options = (f'--config={short}', *names, '--seeds=1', f'--workdir={tmp_path}', *args)
    process = subprocess.Popen(
      [sys.executable, '-m', 'score_jax.replicate', *options],
      cwd=ROOT,
      env=os.environ | {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      start_new_session=True,
    )
    processes.append(process)
    return process

  yield begin
  for process in processes:
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
      process.communicate()


def finish(process) -> str:
  output, _ = process.communicate()
  assert process.returncode == 0, output
  assert 'Traceback' not in output
  return output


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stopped_replication_goes_on_to_its_report(start, tmp_path):
  stage1 = tmp_path / 'stage1' / 'seed0'
  process = start()
  while not (stage1 / 'checkpoints' / '2').exists():
    assert process.poll() is None, process.communicate()[0]
    time.sleep(0.01)
  process.send_signal(signal.SIGTERM)
  output, _ = process.communicate()
  assert process.returncode == 143, output
  with pytest.raises(ProcessLookupError):
    os.killpg(process.pid, 0)
  assert not (stage1 / 'row.json').exists()
  assert 'stopped by SIGTERM' in (tmp_path / 'stage1' / 'log.txt').read_text()
  saved = max(int(p.name) for p in (stage1 / 'checkpoints').iterdir() if p.name.isdigit())
  assert 2 <= saved < NUM_STEPS

  finish(start('--report_only'))
  text = (tmp_path / 'report.md').read_text()
  assert 'not finished: seed 0' in text
  assert not (stage1 / 'row.json').exists()

  output = finish(start('--jobs=2'))
  assert 'report.html' in output
  for row in ('stage1', 'score'):
    steps = [r['step'] for r in read_metrics(tmp_path / row / 'seed0')]
    assert steps == list(range(1, NUM_STEPS + 1))
  sampled = records(tmp_path / 'base' / 'seed0', 'sampled')
  fixed = records(tmp_path / 'score' / 'seed0', 'fixed')
  assert [r['answers'][0] for r in sampled] == [r['answers'][0] for r in fixed]
  report = json.loads((tmp_path / 'report.json').read_text())
  states = {name: row['state'] for name, row in report['rows'].items()}
  finished = {name for name, state in states.items() if state == 'finished'}
  assert finished == {'base', 'stage1', 'score'}
  assert states['self_refine'].startswith('not applicable')
  assert 'mixture_rare' not in states  # trained for others only
  for name in ('report.md', 'report.html'):
    text = (tmp_path / name).read_text()
    assert all(title in text for title in ('Base model', 'SCoRe, Stage I only', 'STaR, D+'))
  assert list((tmp_path / 'figures').iterdir())
