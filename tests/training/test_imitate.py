"""Runs of the supervised baselines: what they sample, keep and train, wherever they are stopped."""

import dataclasses
import itertools
import json
import signal
from unittest import mock

import jax
import numpy as np
import pytest
from etils import epath
from makers import with_flags

from score_jax.core.config import read_config
from score_jax.core.paths import leaf_paths
from score_jax.runs.metrics import read_metrics
from score_jax.runs.restoring import restore_params
from score_jax.setup import run as setup_run
from score_jax.setup import trainable
from score_jax.tasks.arithmetic import grade_one
from score_jax.tasks.base import Verdict
from score_jax.training import imitate as imitate_lib
from score_jax.training.imitate import Imitation, imitate
from score_jax.training.loop import Preempted, TrainingStopped

NUM_PROBLEMS, G, BATCH, EPOCHS, EVERY = 24, 3, 8, 2, 4
# Two iterations of STaR, D+, from the small policy that ships with the package. Evaluation has
# budgets of its own, with which nothing could be answered: samples must not be drawn with them.
CHANGES = {
  'model.checkpoint': 'embedded',
  'task.num_train': 40,
  'task.level_weights': {'4': 1.0, '5': 1.0},  # known by heart, and too long to be
  'rollout.samples_per_problem': G,
  'rollout.turn_tokens': (4, 13),  # an answer at once, a check
  'supervised.method': 'star',
  'supervised.keep_correct': True,
  'supervised.iterations': 2,
  'supervised.epochs': EPOCHS,
  'supervised.batch': BATCH,
  'supervised.num_problems': NUM_PROBLEMS,
  'optimizer.learning_rate': 5e-4,
  'train.checkpoint_every_steps': EVERY,
  'eval.turn_tokens': (2, 2),
  'eval.top_k': 1,
}
FLAGS = [f'--config.{key}={value}' for key, value in CHANGES.items()]


@pytest.fixture(scope='module')
def setup(tiny_run):
  return setup_run.prepare(with_flags(read_config(str(tiny_run)), FLAGS))


class Killed(Exception):
  """Stands for SIGKILL."""


def copied(tree):
  return jax.tree.map(np.array, tree)


def assert_same(one, other):
  jax.tree.map(np.testing.assert_array_equal, copied(one), copied(other))


def changed(setup, **changes):
  """The setup with another config.supervised."""
  config = setup.config.copy_and_resolve_references()
  config.supervised.update(changes)
  return dataclasses.replace(setup, config=config)


class Watched:
  """A run that is looked at: states around each update, and parameters that were sampled from.

  It may be disturbed before an update, or killed after so many samples.
  """

  def __init__(self, setup, workdir, update=None, disturb=None, max_samples=None):
    self.run = Imitation(setup, epath.Path(workdir))
    self.update = update or self.run.step  # or one that is compiled already
    self.before, self.after, self.sampled = [], [], []
    self.disturb, self.max_samples, self.samples = disturb, max_samples, self.run.samples
    self.run.step, self.run.samples = self._step, self._samples

  def _step(self, state, frozen, batch):
    if self.disturb is not None:
      state = self.disturb(self.run, int(state.step) + 1, state)
    self.before.append(copied(state))
    state, metrics = self.update(state, frozen, batch)
    self.after.append(copied(state))
    return state, metrics

  def _samples(self, *args):
    yield from itertools.islice(self.samples(*args), self.max_samples)
    if self.max_samples is not None:
      raise Killed

  def finish(self):
    make = imitate_lib.training_sampler
    patch = mock.patch.object(imitate_lib, 'training_sampler', wraps=make)
    with patch as watched, self.run.running():
      state = copied(self.run.run())
    self.sampled = [copied(call.args[1]) for call in watched.call_args_list]
    return state


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a run leaves: parameters, the bytes of its traces, and metrics without clocks."""

  params: dict
  files: dict
  metrics: list

  @classmethod
  def read(cls, workdir):
    params = restore_params(workdir, step='latest').params
    files = {path.name: path.read_bytes() for path in (workdir / 'traces').iterdir()}
    metrics = read_metrics(workdir)
    return cls(params, files, [{k: r[k] for k in r if not k.startswith('time/')} for r in metrics])

  def assert_equals(self, other):
    assert_same(self.params, other.params)
    assert (self.files, self.metrics) == (other.files, other.metrics)

  def traces(self, iteration):
    lines = self.files[f'iteration{iteration:02d}.jsonl'].decode().splitlines()
    return [json.loads(line) for line in lines]

  def num_updates(self, iteration):
    return EPOCHS * -(-len(self.traces(iteration)) // BATCH)


@pytest.fixture(scope='module')
def whole(setup, tmp_path_factory):
  """A run that nobody disturbed: its directory, the run as it was watched, and its outcome."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  watched = Watched(setup, workdir)
  watched.finish()
  return workdir, watched, Outcome.read(workdir)


def test_traces_can_be_read(setup, whole):
  outcome, tokenizer = whole[2], setup.base.tokenizer
  known = {problem.id: problem for problem in setup.task.train}
  assert outcome.files.keys() == {'iteration01.jsonl', 'iteration02.jsonl'}
  for traces in (outcome.traces(1), outcome.traces(2)):
    assert len({t['problem'] for t in traces}) <= NUM_PROBLEMS
    assert {t['is_right'][0] for t in traces} == {False, True}  # D+ keeps both
    assert max(len(t['first_ids']) for t in traces) > 2  # evaluation's budget
    for t in traces:
      problem = known[t['problem']]
      assert t['question'] == problem.question
      assert t['prompt_ids'] == tokenizer.prompt_ids(problem.question)
      assert t['second_ids'] == t['own_second_ids']
      for name, k in (('first', 0), ('second', 1)):
        assert t[name] == tokenizer.decode(t[f'{name}_ids'])
        assert t['is_right'][k] == grade_one(problem, t[name]).reward
        assert t['is_truncated'][k] != (t[f'{name}_ids'][-1] in tokenizer.end_of_turn_ids)
      assert t['is_right'][1]
  first, second = ({t['problem'] for t in outcome.traces(i)} for i in (1, 2))
  assert first != second  # each iteration draws anew


def test_metrics_count_on_and_an_epoch_trains_each_trace_once(whole):
  outcome = whole[2]
  counts = [outcome.num_updates(1), outcome.num_updates(2)]
  assert [r['step'] for r in outcome.metrics] == list(range(1, sum(counts) + 1))
  found = np.array([r['train/iteration'] for r in outcome.metrics])
  np.testing.assert_array_equal(found, np.repeat([1, 2], counts))
  trained = np.array([r['train/target_tokens'] for r in outcome.metrics])
  for iteration in (1, 2):
    total = sum(len(t['second_ids']) for t in outcome.traces(iteration))
    epochs = trained[found == iteration].reshape(EPOCHS, -1)
    np.testing.assert_array_equal(epochs.sum(axis=1), [total] * EPOCHS)


def test_each_iteration_samples_the_last_result_and_trains_the_start(setup, whole):
  workdir, watched, outcome = whole
  start, first = copied(setup.read_start()), outcome.num_updates(1)
  for number, (before, after) in enumerate(zip(watched.before, watched.after, strict=True)):
    assert (before.step, after.step) == (number, number + 1)
    if number in (0, first):
      assert_same(before.trainable, start)
      assert not any(x.any() for x in jax.tree.leaves(before.opt_state))
    else:
      assert_same(before, watched.after[number - 1])
  assert_same(watched.sampled, [start, watched.after[first - 1].trainable])
  with pytest.raises(AssertionError):
    assert_same(watched.sampled[1], start)
  for which in ('best', 'latest'):  # no reward is measured: the last one counts
    restored = trainable.restore_policy(str(workdir), setup.base, which)
    assert restored.step == len(watched.after)
    assert_same(restored.params, watched.after[-1].trainable)


def at(number, action):
  """Does something to a run ahead of one of its updates."""
  return lambda run, n, state: action(run, state) if n == number else state


def kill(run, state):
  raise Killed


def stop(run, state):
  assert signal.getsignal(signal.SIGTERM) == run.stop
  signal.raise_signal(signal.SIGTERM)
  return state


def spoil(run, state):
  return state.replace(trainable=jax.tree.map(lambda x: x * np.nan, state.trainable))


def forget(run, state):
  return state.replace(opt_state=jax.tree.map(lambda x: x * 0, state.opt_state))


def test_a_run_that_is_stopped_everywhere_ends_as_one_that_was_not(setup, whole, tmp_path):
  """State, traces and metrics, bit for bit; each start goes on where the last one had saved."""
  _, watched, want = whole
  first, last = want.num_updates(1), len(watched.after)
  assert first > EVERY and last - first > EVERY
  rhythm = max(first, (first + 2) // EVERY * EVERY)  # the last checkpoint before first + 3
  # How it ends, what is done to it, and the update after which it goes on; None does none.
  starts = [
    (Killed, None, dict(max_samples=3), None),
    (Preempted, 'update 1 is saved', dict(disturb=at(1, stop)), 0),  # off the rhythm
    (Killed, None, dict(disturb=at(3, kill)), 1),  # update 2 is to be done again
    (Killed, None, dict(max_samples=3), 1),  # iteration 1 is done, 2 is being sampled
    (Killed, None, dict(disturb=at(first + 1, kill)), None),  # its traces are there, and no update
    (TrainingStopped, f'update {first + 3}: loss nan', dict(disturb=at(first + 3, spoil)), first),
    (Preempted, f'update {last} is saved', dict(disturb=at(last, stop)), rhythm),  # nothing is left
  ]
  for error, message, how, after in starts:
    again = Watched(setup, tmp_path, watched.update, **how)
    with pytest.raises(error, match=message):
      again.finish()
    assert [int(state.step) for state in again.before[:1]] == ([] if after is None else [after])
  again = Watched(setup, tmp_path, watched.update)
  assert_same(again.finish(), watched.after[-1])
  assert not again.before and not again.sampled
  Outcome.read(tmp_path).assert_equals(want)


def test_the_check_can_fail(setup, whole, tmp_path):
  """A run that goes on without the optimiser's state."""
  _, watched, want = whole
  last, restored = len(watched.after), (len(watched.after) - 1) // EVERY * EVERY
  assert restored > want.num_updates(1)
  with pytest.raises(Killed):
    Watched(setup, tmp_path, watched.update, at(last, kill)).finish()
  Watched(setup, tmp_path, watched.update, at(restored + 1, forget)).finish()
  with pytest.raises(AssertionError, match='Arrays are not equal'):
    Outcome.read(tmp_path).assert_equals(want)


def test_traces_of_pairs_are_read_as_they_were_made(setup, tmp_path):
  run = Imitation(changed(setup, method='pair_sft'), epath.Path(tmp_path))
  made, read = run.traces(1, None), run.traces(1, None)
  run.close()
  assert made == read and any(t.second_ids != t.sample.answer_ids[1] for t in made)


@pytest.mark.parametrize(('reward', 'method'), [(0, 'pair_sft'), (1, 'star')])
def test_nothing_to_imitate(setup, tmp_path, reward, method):
  """Every answer gets the same reward, and D takes wrong first answers and right second ones."""
  verdict = Verdict(float(reward), 'by decree')
  task = dataclasses.replace(setup.task, grade=lambda problems, texts: [verdict] * len(texts))
  setup = changed(dataclasses.replace(setup, task=task), method=method, keep_correct=False)
  with pytest.raises(TrainingStopped, match='keep_correct=True') as caught:
    imitate(setup, tmp_path)
  found = f'0 traces of {NUM_PROBLEMS * G} episodes, {reward:.1%} right at turn 1 and {reward:.1%}'
  for part in (found, f'samples_per_problem={G}', f'supervised.num_problems={NUM_PROBLEMS}'):
    assert part in str(caught.value)
  assert not (tmp_path / 'traces').exists()


def test_refusals(setup, whole, tmp_path):
  def refused(setup, message, workdir=tmp_path / 'new'):
    with pytest.raises(ValueError, match=message):
      imitate(setup, workdir)

  followup_ids = setup.spec.followup_ids * 2
  spec = dataclasses.replace(setup.spec, turn_tokens=(9, 8, 7), followup_ids=followup_ids)
  refused(dataclasses.replace(setup, spec=spec), r'=\(9, 8, 7\): .* have two turns, not 3')
  for method in ('', 'sft'):
    message = rf"supervised.method='{method}' is none of \('star', 'pair_sft'\)"
    refused(changed(setup, method=method), message)
  assert not (tmp_path / 'new').exists()  # not claimed
  message = r'of another configuration:\n  supervised.keep_correct: True in the run, False now\n'
  refused(changed(setup, keep_correct=False), message, whole[0])


@pytest.mark.slow
def test_adapters_are_trained_alone(setup, tmp_path):
  config = changed(setup, iterations=1).config
  config.lora.rank = 2
  setup = setup_run.prepare(config)
  base, start = copied(setup.base.params), copied(setup.read_start())
  state = imitate(setup, tmp_path)
  assert {path[-1][-2:] for path in leaf_paths(state.trainable)} == {'_a', '_b'}
  moved = jax.tree.map(lambda x, y: bool((x != y).any()), copied(state.trainable), start)
  assert all(jax.tree.leaves(moved)), moved
  assert_same(setup.base.params, base)
  restored = trainable.restore_policy(str(tmp_path), setup.base, 'latest').params
  assert_same(restored, setup.trainable.policy_params(state.trainable))


@pytest.mark.slow
def test_the_command_line_does_the_same(tiny_run, whole, tmp_path, run_python):
  workdir = tmp_path / 'run'
  done = run_python('-m', 'score_jax.main', f'--config={tiny_run}', f'--workdir={workdir}', *FLAGS)
  assert done.returncode == 0 and ' steps of ' in done.stdout, done.stderr
  Outcome.read(workdir).assert_equals(whole[2])
  done = run_python('-m', 'score_jax.evaluate', f'--run={workdir}', '--num_problems=10')
  assert done.returncode == 0 and '| acc_t2 |' in done.stdout, done.stderr
