"""One row of a replication in this process."""

import dataclasses
import json
import pathlib
import re
import types

import jax
import numpy as np
import pytest
from etils import epath
from makers import ROOT
from replication_rows import records_of, write_lines, write_tiny

from score_jax.core.config import read_config
from score_jax.evaluation import protocol
from score_jax.evaluation.protocol import make_prompts
from score_jax.replication import one_row
from score_jax.replication.one_row import base_first_answers, run_row, run_rows
from score_jax.replication.rows import read_rows, row_config
from score_jax.replication.whole import reopen
from score_jax.runs.checkpoints import Checkpoints
from score_jax.setup import run as setup_run
from score_jax.setup.policy import Policy
from score_jax.setup.task import make_task
from score_jax.training.loop import Preempted, TrainingStopped


@pytest.fixture(scope='module')
def base_row(tmp_path_factory):
  """The row `base`, really run here, with every evaluation.

  It answers at once and is never cut off at turn 1; some of its sampled answers are made such here.
  """
  config = read_config(str(write_tiny(tmp_path_factory.mktemp('tiny'))))
  row, workdir = read_rows(config)['base'], epath.Path(tmp_path_factory.mktemp('replication'))
  about = {'commit': 'abc', 'hardware': 'some'}
  folder = workdir / 'base' / 'seed0'
  run_row(config, dataclasses.replace(row, evaluations=('sampled',)), 0, workdir, about)
  (folder / 'row.json').unlink()
  records = records_of(folder, 'sampled')
  for record in records[::3]:
    record['answers'][0], record['finals'][0], record['rewards'][0] = '= 4 4', '4 4', 0.0
    record['truncated'][0] = True
  write_lines(folder / 'eval_sampled' / 'records.jsonl', records)
  run_row(config, row, 0, workdir, about)
  return config, row, workdir, about


def test_files_of_a_row(base_row):
  _, _, workdir, about = base_row
  folder = workdir / 'base' / 'seed0'
  told = json.loads((folder / 'row.json').read_text())
  assert {k: told[k] for k in ('row', 'seed', *about)} == {'row': 'base', 'seed': 0} | about
  assert told['num_problems'] == 64
  # The base trains nothing; less than 0.05 s is written as 0.
  assert told['seconds'] > 0 and told['seconds'] >= told['trained_s'] >= 0
  for kind, num_turns in {'greedy': 2, 'sampled': 2, 'fixed': 2, 'turns': 3}.items():
    found = records_of(folder, kind)
    assert [r['id'] for r in found] == [2 * i for i in range(64)]  # evenly over the split
    for key in ('answers', 'finals', 'rewards', 'reasons', 'tokens', 'truncated'):
      assert {len(r[key]) for r in found} == {num_turns}, (kind, key)
    metrics = json.loads((folder / f'eval_{kind}/metrics.json').read_text())
    assert metrics['temperature'] == (1.0 if kind == 'sampled' else 0.0)
    assert (metrics['row'], metrics['seed'], metrics['commit']) == ('base', 0, 'abc')
    mean = sum(r['rewards'][1] for r in found) / 64
    assert metrics['acc_t2']['mean'] == pytest.approx(mean)
    assert metrics['measurement']['split'] == 'test'
  assert {
    kind: [r['answers'][:2] for r in records_of(folder, kind)] for kind in ('greedy', 'turns')
  } == dict.fromkeys(('greedy', 'turns'), [r['answers'] for r in records_of(folder, 'greedy')])


def test_training_problems_are_evaluated_as_far_as_there_are_any(base_row, monkeypatch):
  config, row, workdir, _ = base_row
  folder = workdir / 'base' / 'seed0'
  found, run = records_of(folder, 'train'), row_config(config, row, 0, workdir)
  metrics = json.loads((folder / 'eval_train' / 'metrics.json').read_text())
  assert (metrics['temperature'], metrics['measurement']['split']) == (0.0, 'train')
  task = make_task(run)
  asked = {p.question: p.answer for p in task.train}
  assert [r['question'] for r in found] == [task.train[i * 100 // 64].question for i in range(64)]
  assert not {r['question'] for r in found} & {p.question for p in task.test}
  assert [r['rewards'][1] for r in found] == [
    float(r['finals'][1] == asked[r['question']]) for r in found
  ]
  # The config wants more held-out problems than there are to train on; of a whole split, all.
  taken = []
  monkeypatch.setattr(protocol, 'make_prompts', lambda *args: taken.append(args[2:]) or stop())
  for wanted in (128, 0):
    run.eval.num_problems = wanted
    setup = types.SimpleNamespace(config=run, task=task)
    with pytest.raises(Stop):
      one_row._evaluate(config, setup, None, 'train', workdir, folder, {})
  assert taken == [(100, 'train'), (0, 'train')]


def test_fixed_first_answers_are_the_bases_samples(base_row):
  config, row, workdir, _ = base_row
  folder = workdir / 'base' / 'seed0'
  sampled, fixed = records_of(folder, 'sampled'), records_of(folder, 'fixed')
  for key in ('answers', 'finals', 'rewards', 'tokens', 'truncated'):
    assert [r[key][0] for r in sampled] == [r[key][0] for r in fixed], key
  assert {r['truncated'][0] for r in sampled} == {True, False}, 'a case of each is wanted'
  greedy = records_of(folder, 'greedy')
  assert [r['answers'][0] for r in greedy] != [r['answers'][0] for r in sampled]

  setup = setup_run.prepare(row_config(config, row, 0, workdir))
  try:
    prompts = make_prompts(Policy.of_base(setup.config, setup.base), setup.task, 64)
    forced = base_first_answers(folder, prompts, setup)
  finally:
    setup.task.close()
  (end,) = setup.base.tokenizer.end_of_turn_ids
  for ids, record in zip(forced, sampled, strict=True):
    assert len(ids) == record['tokens'][0]
    assert (end in ids) is (not record['truncated'][0])
    assert setup.base.tokenizer.decode([i for i in ids if i != end]) == record['answers'][0]


def test_votes_of_a_row(base_row):
  _, _, workdir, _ = base_row
  path = workdir / 'base' / 'seed0' / 'votes.jsonl'
  votes = [json.loads(line) for line in path.read_text().splitlines()]
  terms = {r['id']: re.findall(r'\d', r['question']) for r in records_of(path.parent, 'greedy')}
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
  # Each sample has a key of its own, whether by itself or the first of a pair. Short sums are
  # known by heart, so that their samples may all be the same.
  alone = [v['parallel']['finals'] for v in votes]
  first = [v['sequential']['first_finals'] for v in votes]
  guessed = [finals for v, finals in zip(votes, alone, strict=True) if int(v['level']) > 4]
  assert guessed and all(len(set(finals)) > 1 for finals in guessed)
  assert [f[:16] for f in alone] != first != [f[16:] for f in alone]


class Stop(Exception):
  """Ends an evaluation before it samples."""


def stop():
  raise Stop


@pytest.fixture
def sampled_with(base_row, monkeypatch, tmp_path):
  """Name of an evaluation -> its budgets and its temperature, of a row with turns of 3 and 6."""
  config, row, _, _ = base_row
  run = row_config(config, row, 0, epath.Path(tmp_path))

  def stop(policy, task, temperature):
    raise Stop(policy.config.eval.turn_tokens or policy.config.rollout.turn_tokens, temperature)

  def evaluate(name):
    policy, setup = Policy(run, None, {}, '', 0), types.SimpleNamespace(config=run, task=None)
    with pytest.raises(Stop) as stopped:
      one_row._evaluate(config, setup, policy, name, tmp_path, tmp_path, {})
    return stopped.value.args

  monkeypatch.setattr(protocol, 'make_prompts', lambda *_: types.SimpleNamespace(problems=[]))
  monkeypatch.setattr(protocol, 'make_sampler', stop)
  return evaluate


def test_budgets_and_temperatures_of_the_evaluations(sampled_with):
  """Votes as in the paper's Fig. 1; more turns have the last one's budget."""
  assert sampled_with('greedy') == ((3, 6), 0.0)
  assert sampled_with('sampled') == ((3, 6), 1.0)
  assert sampled_with('votes') == ((3, 6), 0.7)
  assert sampled_with('turns') == ((3, 6, 6), 0.0)


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


def test_what_is_not_whole_is_evaluated_again(base_row, caplog):
  config, row, workdir, about = base_row
  folder = workdir / 'base' / 'seed0'
  greedy, votes = folder / 'eval_greedy' / 'records.jsonl', folder / 'votes.jsonl'
  told = json.loads((folder / 'row.json').read_text())
  assert told['records'] == dict.fromkeys(row.evaluations, 64) | {'votes': 4}
  assert reopen(workdir, [row], lambda row: [0]) == []
  whole = {path: path.read_text() for path in (greedy, votes)}
  for path, text in whole.items():
    path.write_text(''.join(text.splitlines(keepends=True)[:-1]))
  (folder / 'eval_turns' / 'metrics.json').unlink()
  train = folder / 'eval_train' / 'records.jsonl'
  whole[train] = train.read_text()
  train.write_text(whole[train].replace('"rewards"', '"x"'))
  wrong = reopen(workdir, [row], lambda row: [0])
  assert [text.removeprefix(f'{folder}/') for text in wrong] == [
    'eval_greedy/records.jsonl has 63 of 64 problems',
    'eval_train/records.jsonl:1: no record of an evaluation',
    'eval_turns/metrics.json is missing',
    'votes.jsonl has 3 of 4 problems',
  ]
  assert all(text in caplog.text for text in wrong)
  untouched = pathlib.Path(folder, 'eval_sampled', 'records.jsonl').stat().st_mtime_ns
  run_row(config, row, 0, workdir, about)
  assert {path: path.read_text() for path in whole} == whole
  assert (folder / 'eval_turns' / 'metrics.json').exists()
  assert pathlib.Path(folder, 'eval_sampled', 'records.jsonl').stat().st_mtime_ns == untouched
  assert json.loads((folder / 'row.json').read_text())['records'] == told['records']


@pytest.mark.parametrize('file', ['replicate_arithmetic', 'quickstart'])
def test_what_a_row_goes_on_from_and_what_is_evaluated_is_the_best(file, monkeypatch, tmp_path):
  """Its parameters are those of step 1; step 2, the latest, was rewarded less."""
  config, workdir = read_config(f'{ROOT}/configs/{file}.py'), epath.Path(tmp_path)
  config.run.task.num_train = config.run.task.num_test = 64
  starts, evaluated = [], []

  def train(setup, folder):
    starts.append(setup.read_start()['final_norm']['scale'])
    with Checkpoints(folder / 'checkpoints', async_save=False) as checkpoints:
      for step, reward in ((1, 0.9), (2, 0.1)):
        params = jax.tree.map(lambda x, n=step: x + n, setup.base.params)
        checkpoints.save(step, {'trainable': params}, metadata={}, reward=reward)

  monkeypatch.setattr(one_row.train, 'train', train)
  monkeypatch.setattr(
    one_row, '_evaluate', lambda config, setup, policy, *_: evaluated.append(policy)
  )
  rows = read_rows(config)
  (last,) = (row for row in rows.values() if row.name in ('score', 'stage2'))
  for row in (rows[last.init], last):
    run_row(config, dataclasses.replace(row, evaluations=('greedy',)), 0, workdir, {})
  base = starts[0]
  np.testing.assert_array_equal(starts[1], base + 1)
  assert [policy.step for policy in evaluated] == [1, 1]
  for policy in evaluated:
    np.testing.assert_array_equal(policy.params['final_norm']['scale'], base + 1)


def test_a_base_policy_is_made_in_place_of_a_run(base_row, monkeypatch, tmp_path):
  config, _, _, about = base_row
  made = []

  def make(config, folder):
    assert folder.is_dir()
    made.append((config.phases[0].steps, folder))

  monkeypatch.setattr(one_row.pretraining, 'make_base', make)
  run_row(config, read_rows(config)['worked_base'], 0, epath.Path(tmp_path), about)
  folder = tmp_path / 'worked_base' / 'seed0'
  assert made == [(1500, folder)]
  assert json.loads((folder / 'row.json').read_text()).keys() == {'row', 'seed', *about, 'seconds'}


@pytest.mark.parametrize(
  ('error', 'status', 'told'),
  [(Preempted('saved'), 143, 'saved'), (TrainingStopped('NaN'), 1, 'stopped: NaN')],
)
def test_a_stopped_row_ends_the_program(base_row, monkeypatch, capsys, error, status, told):
  config, row, workdir, about = base_row
  seeds = []

  def run(config, row, seed, workdir, about):
    seeds.append(seed)
    if seed:
      raise error

  monkeypatch.setattr(one_row, 'run_row', run)
  with pytest.raises(SystemExit, match=str(status)):
    run_rows(config, [(row, seed) for seed in range(3)], workdir, about)
  assert seeds == [0, 1]
  assert capsys.readouterr().err == f'{told}\n'
