"""What a step learns from: mixed-in first answers of the base model, the random-reward control."""

import dataclasses
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.core.types import compact
from score_jax.setup import run as setup_run
from score_jax.tasks.base import Verdict
from score_jax.training.experience import Collector, training_sampler

P, G = 8, 4


def grade(problems, texts):
  """A checker with something to say of a random policy: it likes texts of even length."""
  is_even = [len(text) % 2 == 0 for text in texts]
  return [Verdict(float(x), 'even' if x else 'odd') for x in is_even]


@pytest.fixture(scope='module')
def setup(tiny_run):
  config = runpy.run_path(str(tiny_run))['get_config']()
  config.rollout.samples_per_problem = G
  setup = setup_run.prepare(config)
  yield dataclasses.replace(setup, task=dataclasses.replace(setup.task, grade=grade))
  setup.task.close()


@pytest.fixture(scope='module')
def policy(setup):
  """Another policy than the base model: so noisy that no two answers are likely to agree."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: x + rng.normal(0.0, 0.5, x.shape).astype(np.float32), setup.base.params
  )


def collect(setup, params, step=3, **options):
  collector = Collector(
    sampler=training_sampler(setup, setup.base.params),
    prompts=setup.prompts,
    task=setup.task,
    samples_per_problem=G,
    **options,
  )
  with jax.sharding.set_mesh(setup.mesh):
    return collector.collect(params, step, np.arange(P)), collector


def rows(experience, which):
  """The chosen rows of an episode, as plain arrays."""
  return jax.tree.map(lambda x: x[which], experience.episode)


def test_first_attempts_of_the_base_model(setup, policy):
  own, _ = collect(setup, policy)
  base, _ = collect(setup, setup.base.params)
  forced, _ = collect(setup, policy, base_turn1_share=1.0)
  assert own.texts[0] != base.texts[0]
  # The base model's own first answers, word for word, with the same random keys.
  assert forced.texts[0] == base.texts[0]
  turn = np.asarray(forced.episode.turn)
  assert not forced.episode.is_sampled[turn == 1].any()
  assert forced.episode.is_sampled[turn == 2].all()


def test_share_of_first_attempts(setup, policy):
  own, _ = collect(setup, policy)
  base, _ = collect(setup, setup.base.params)
  mixed, collector = collect(setup, policy, base_turn1_share=0.5)
  ids = [problem.id for problem in setup.prompts.problems[:P]]
  is_base = np.repeat(collector.is_base_first(3, ids), G)
  assert 0 < is_base.sum() < P * G
  # Rows that the policy answers itself are what they are without the others. Turn 1 was prefilled
  # for turn 2 and not decoded, so log-probabilities may be rounded otherwise.
  longest = int(own.episode.is_token.sum(axis=1).max())
  ours, theirs = (
    compact(jax.tree.map(jnp.asarray, rows(e, ~is_base)), longest) for e in (mixed, own)
  )
  for name, x in vars(ours).items():
    atol = 1e-5 if name == 'sampled_logp' else 0
    np.testing.assert_allclose(x, getattr(theirs, name), atol=atol, err_msg=name)
  for b in np.flatnonzero(is_base):
    assert mixed.texts[0][b] == base.texts[0][b]
    turn = mixed.episode.turn[b]
    assert not mixed.episode.is_sampled[b, turn == 1].any()
    assert mixed.episode.is_sampled[b, turn == 2].all()
    assert (mixed.episode.sampled_logp[b, turn == 1] == 0).all()
  # All samples of a problem share where their first answer comes from.
  assert all(len(set(group)) == 1 for group in is_base.reshape(P, G).tolist())


def test_which_problems_get_them_is_drawn_anew(setup):
  collector = collect(setup, setup.base.params, base_turn1_share=0.25)[1]
  drawn = np.asarray([collector.is_base_first(step, range(1000)) for step in (1, 2)])
  assert (np.abs(drawn.mean(axis=1) - 0.25) < 0.05).all()
  assert (drawn[0] != drawn[1]).any()
  # By problem, not by place: other neighbours change nothing.
  np.testing.assert_array_equal(collector.is_base_first(1, [7, 500]), drawn[0][[7, 500]])


def test_random_rewards_know_nothing_of_the_answers(setup, policy):
  true, _ = collect(setup, policy)
  control = [collect(setup, policy, step=s, random_reward=0.5)[0] for s in (3, 3, 4)]
  # What the checker said stays as the reason; the reward is random.
  assert [v.reason for v in control[0].verdicts[0]] == [v.reason for v in true.verdicts[0]]
  assert control[0].texts == true.texts
  np.testing.assert_array_equal(control[0].reward_BK, control[1].reward_BK)
  assert (control[0].reward_BK != control[2].reward_BK).any()


def check_rewards_are_random(setup, policy, share=0.3, num_steps=16):
  """Whatever the rewards could depend on, they are 1 with the same chance, and by themselves."""
  steps = range(5, 5 + num_steps)
  drawn, truth = (
    np.stack([collect(setup, policy, step=s, **how)[0].reward_BK for s in steps])
    for how in ({'random_reward': share}, {})
  )
  shape = (num_steps, P, G, 2)
  drawn, truth = drawn.reshape(shape), truth.reshape(shape)
  assert 0.4 < truth.mean() < 0.6  # a policy of which there is much to know

  def assert_share(values, want):
    values = np.ravel(values)
    assert abs(values.mean() - want) < 4.5 * np.sqrt(want * (1 - want) / values.size)

  for turn in range(2):
    for is_right in (0, 1):
      for graded in range(2):  # also by the other turn's verdict
        assert_share(drawn[..., turn][truth[..., graded] == is_right], share)
  both = share**2 + (1 - share) ** 2
  assert_share(drawn[..., 0] == drawn[..., 1], both)  # turns
  assert_share(drawn[:, :, 0] == drawn[:, :, 1], both)  # samples of a problem
  assert_share(drawn[:, 0] == drawn[:, 1], both)  # problems
  assert_share(drawn[::2] == drawn[1::2], both)  # steps
  unlike = drawn.min(axis=2) != drawn.max(axis=2)
  assert_share(unlike, 1 - share**G - (1 - share) ** G)


def test_random_rewards_are_independent_of_all_else(setup, policy):
  check_rewards_are_random(setup, policy)


LEAKS = {
  'the verdict or the draw': lambda draws, truth: np.maximum(draws, truth),
  'the verdict and the draw': lambda draws, truth: np.minimum(draws, truth),
  'now and then the verdict': lambda draws, truth: np.where(np.arange(P * G) % 4, draws, truth),
  'one draw for both turns': lambda draws, truth: draws[:1].repeat(2, axis=0),
  'one draw for a problem': lambda draws, truth: draws[:, ::G].repeat(G, axis=1),
  'one draw for a step': lambda draws, truth: draws[:, :1].repeat(P * G, axis=1),
  'another share': lambda draws, truth: 1 - draws,
}


@pytest.mark.parametrize('name', LEAKS)
def test_the_check_of_random_rewards_can_fail(setup, policy, monkeypatch, name):
  random_rewards = Collector._random_rewards

  def leaky(self, verdicts, *rest):
    drawn = random_rewards(self, verdicts, *rest)
    draws, truth = ([[v.reward for v in turn] for turn in x] for x in (drawn, verdicts))
    found = LEAKS[name](np.array(draws), np.array(truth))
    return [[Verdict(float(x), 'leaked') for x in turn] for turn in found]

  monkeypatch.setattr(Collector, '_random_rewards', leaky)
  with pytest.raises(AssertionError):
    check_rewards_are_random(setup, policy)
