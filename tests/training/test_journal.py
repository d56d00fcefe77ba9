"""What is written down of a step, by hand."""

import numpy as np
import pytest
from etils import epath
from small_models import tiny_decoder

from score_jax.core.config import default_config
from score_jax.core.types import Episode
from score_jax.runs.metrics import read_metrics
from score_jax.runs.segments import read_segments
from score_jax.tasks.base import Problem, Verdict
from score_jax.training import profiling
from score_jax.training.experience import Experience
from score_jax.training.journal import Journal

RIGHT, WRONG, LATE = Verdict(1.0, 'correct'), Verdict(0.0, 'wrong'), Verdict(0.0, 'error: timeout')


@pytest.fixture
def experience():
  """One problem, two samples of two turns: a prompt of 2 tokens and 1 sampled token a turn."""
  is_token = np.ones((2, 4), bool)
  is_sampled = np.array([[0, 0, 1, 1]] * 2, bool)
  arrays = dict.fromkeys(('tokens', 'positions', 'turn', 'sampled_logp'), np.zeros((2, 4)))
  is_truncated = np.array([[False, True], [False, False]])
  episode = Episode(**arrays, is_token=is_token, is_sampled=is_sampled, is_truncated=is_truncated)
  return Experience(
    problems=[Problem(7, '1+1', '2')] * 2,
    episode=episode,
    texts=[['= 3', '= 2'], ['= 2', '= 2']],
    finals=[['3', '2'], ['2', '2']],
    verdicts=[[WRONG, RIGHT], [RIGHT, LATE]],
    times={'time/rollout_s': 0.5},
    start_s=0.0,
  )


@pytest.fixture
def journal(tmp_path):
  config = default_config()
  config.rollout.update(prompt_tokens=2, samples_per_problem=2)
  config.train.update(num_saved_problems=1, episodes_every_steps=2)
  return Journal(epath.Path(tmp_path), config, tiny_decoder())


def test_a_step_is_written_with_its_shares_and_episodes(journal, experience, tmp_path):
  journal.rewind(0)
  for step in (1, 2, 3):
    written = journal.write(step, {'train/loss': 0.25}, experience, done_s=float(step))
  journal.close()
  assert written['time/step_s'] == 1.0 and written['time/sampled_tokens_per_s'] == 4.0
  records = read_metrics(tmp_path)
  assert [record['step'] for record in records] == [1, 2, 3]
  shares = {k: v for k, v in records[0].items() if k.startswith('train/')}
  assert shares == {
    'train/loss': 0.25,
    'train/graded_correct': 0.5,
    'train/graded_error': 0.25,
    'train/graded_wrong': 0.25,
    'train/changed_t12': 0.5,
  }
  # The first step and each second one; lists of plain values.
  episodes = read_segments(tmp_path / 'episodes', 'process0000')
  assert [record['step'] for record in episodes] == [1, 1, 2, 2]
  assert episodes[1] == {
    'step': 1,
    'problem': 7,
    'question': '1+1',
    'answer': '2',
    'answers': ['= 2', '= 2'],
    'finals': ['2', '2'],
    'rewards': [1.0, 0.0],
    'reasons': ['correct', 'error: timeout'],
    'truncated': [False, False],
  }


def test_as_many_problems_are_kept_as_the_config_says(experience, tmp_path):
  """Of two rows that are samples of two problems, those of one."""
  config = default_config()
  config.rollout.update(prompt_tokens=2, samples_per_problem=1)
  config.train.update(num_saved_problems=1)
  journal = Journal(epath.Path(tmp_path), config, tiny_decoder())
  journal.write(1, {}, experience, done_s=1.0)
  journal.close()
  kept = read_segments(tmp_path / 'episodes', 'process0000')
  assert [record['answers'] for record in kept] == [['= 3', '= 2']]


@pytest.mark.parametrize('rank', [0, 4])
def test_rates_are_those_of_the_runs_sizes(experience, tmp_path, monkeypatch, rank):
  config, taken = default_config(), []
  config.rollout.update(prompt_tokens=2, samples_per_problem=2)
  config.lora.rank = rank
  journal = Journal(epath.Path(tmp_path), config, tiny_decoder())
  journal.write(1, {}, experience, done_s=1.0)
  monkeypatch.setattr(profiling, 'step_rates', lambda *args: taken.append(args) or {})
  journal.write(2, {}, experience, done_s=3.5)
  journal.close()
  assert taken == [(tiny_decoder(), experience.episode, 2, 2, rank > 0, 2.5)]


def test_a_batch_is_kept_whole(journal, experience, tmp_path):
  path = journal.keep_batch(3, experience)
  assert (
    path.parent == epath.Path(tmp_path) and path.name == 'stopped_batch_00000003_process0000.npz'
  )
  with np.load(path) as arrays:
    np.testing.assert_array_equal(arrays['reward'], [[0, 1], [1, 0]])
    fields = vars(experience.episode)
    assert set(arrays) == {'reward', *fields}
    for name, x in fields.items():
      np.testing.assert_array_equal(arrays[name], x)
