"""The update of a run: all of its config, by hand; what is refused, when it is built anew."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from ml_collections import FrozenConfigDict
from small_models import compiled_decoder, random_params, tiny_decoder

from score_jax.core.config import default_config, read_config
from score_jax.core.config_check import check_config
from score_jax.model.decoder import Decoder
from score_jax.runs.checkpoints import Checkpoints
from score_jax.runs.metrics import read_metrics
from score_jax.setup import run as setup_run
from score_jax.setup.base_model import make_decoder_config
from score_jax.tasks.base import Verdict
from score_jax.training.train import Trainer
from score_jax.training.train_step import StepOptions
from score_jax.training.update import compiled_step, make_step_options


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('train.checkpoint_every_steps', 0, 'must be at least 1'),
    ('eval.batch', 0, 'must be at least 1'),
    ('objective.baseline', 'mean', 'baseline'),
    ('objective.kl_estimator', 'k1', 'zero expected gradient'),
    ('objective.importance_cap', 0.5, 'importance_cap=0.5 must be 0 or at least 1'),
    ('rollout.temperature', 0.0, 'temperature'),
    ('rollout.samples_per_problem', 1, 'samples_per_problem=1'),
  ],
)
def test_numbers_that_cannot_work_are_refused_before_anything_runs(key, value, message):
  config = default_config()
  with config.unlocked():
    config.update_from_flattened_dict({key: value})
  with pytest.raises(ValueError, match=message):
    check_config(config)
    make_step_options(config)


def test_the_choices_of_an_update_are_the_configs():
  config = default_config()
  changes = {
    'rollout.samples_per_problem': 3,
    'objective.baseline': 'none',
    'objective.kl_estimator': 'k2',
    'objective.kl_credit': 'token',
    'rollout.temperature': 0.7,
    'train.chunk_tokens': 9,
    'objective.importance_cap': 2.0,
  }
  config.update_from_flattened_dict(changes)
  assert make_step_options(config) == StepOptions(3, 'none', 'k2', 'token', 0.7, 9, 2.0)


def test_runs_that_differ_in_their_stage_share_an_update():
  """Stages are arrays: only the model, the options and the optimiser make another program."""
  config = default_config()
  options = make_step_options(config)

  def step_of(options, **optimizer):
    config.optimizer.update(optimizer)
    return compiled_step(Decoder(tiny_decoder()), None, options, FrozenConfigDict(config.optimizer))

  step = step_of(options)
  config.stage.kl_weight = (0.5, 0.5)
  assert step_of(make_step_options(config)) is step
  assert step_of(dataclasses.replace(options, baseline='none')) is not step
  assert step_of(options, learning_rate=0.1) is not step


# One step of a run, from config to parameters, against what the config says, by plain means.

P, G, TURN_TOKENS, SEED = 4, 4, (3, 5), 5
# Hardly a value is its default, and each one matters.
STAGE = dict(name='odd', reward_weight=(0.5, 2.0), kl_weight=(0.3, 0.2), bonus=(0.0, 3.0))
HELD_TO_THE_BASE = {
  'stage': STAGE | dict(kl_target_nats=(4.3, 0.0)),
  'objective': dict(baseline='rloo_given_r1', kl_estimator='k2', kl_credit='token'),
  'rollout': dict(temperature=0.7, base_turn1_share=0.5),
  'train': dict(micro_batches=2),
}
HELD_TO_THE_START = {
  'stage': STAGE | dict(reference='init', discount=0.5, bonus=(0.0, 0.0)),
  'objective': dict(baseline='none'),
  'rollout': dict(temperature=1.6),
  'train': dict(random_reward=0.3),
}
OPTIMIZER = dict(learning_rate=0.2, b1=0.6, b2=0.8, eps=0.05, weight_decay=0.2, clip_norm=0.7)


def grade(problems, texts):
  """Looks at the problem as well as at the answer, and finds about half of the answers right."""
  is_right = [(p.id + len(t)) % 4 > 1 for p, t in zip(problems, texts, strict=True)]
  return [Verdict(float(x), 'right' if x else 'wrong') for x in is_right]


class OneStep(Trainer):
  """Keeps what the step learnt from."""

  def collect(self, state, step):
    self.experience = super().collect(state, step)
    return self.experience


@pytest.fixture(scope='module', params=[HELD_TO_THE_BASE, HELD_TO_THE_START])
def stepped(request, tiny_run, tmp_path_factory):
  """A run of one step from another run's best checkpoint: config, experience, and what it left."""
  folder = tmp_path_factory.mktemp('stepped')
  config = read_config(str(tiny_run))
  for part, values in (request.param | {'optimizer': OPTIMIZER}).items():
    config[part].update(values)
  config.seed, config.train.num_steps, config.init.path = SEED, 1, str(folder / 'before')
  config.rollout.update(problems_per_step=P, samples_per_problem=G, turn_tokens=TURN_TOKENS)
  decoder = make_decoder_config(config)
  best, other = (random_params(decoder, seed) for seed in (1, 2))
  with Checkpoints(folder / 'before' / 'checkpoints') as checkpoints:
    for step, (params, reward) in enumerate([(best, 0.9), (other, 0.1)]):
      checkpoints.save(step, {'trainable': params}, metadata={}, reward=reward)
  setup = setup_run.prepare(config)
  setup = dataclasses.replace(setup, task=dataclasses.replace(setup.task, grade=grade))
  start = setup.read_start()
  trainer = OneStep(setup, epath.Path(folder / 'run'), start)
  with trainer.running():
    state = jax.device_get(trainer.run(trainer.first_state(start)))
  setup.task.close()
  (metrics,) = read_metrics(folder / 'run')
  return setup, best, trainer.experience, state, metrics


def plain_rows(setup, e, problems):
  """Rows laid out here: tokens i32[B, T], bool[B, K, T] of the answers, and how long they are."""
  tokenizer, rows, is_answer = setup.base.tokenizer, [], []
  (end,) = tokenizer.end_of_turn_ids
  for b, problem in enumerate(problems):
    y1, y2 = (e.tokens[b][e.turn[b] == k].tolist() for k in (1, 2))
    prompt = tokenizer.prompt_ids(problem.question)
    between = [end] * (end not in y1) + tokenizer.followup_ids(setup.task.instruction)
    rows.append(prompt + y1 + between + y2)
    kinds = [0] * len(prompt) + [1] * len(y1) + [0] * len(between) + [2] * len(y2)
    is_answer.append([[kind == k for kind in kinds] for k in (1, 2)])
    assert e.tokens[b][e.is_token[b]].tolist() == rows[-1]
    assert e.is_truncated[b].tolist() == [end not in y1, end not in y2]
  lengths_B = np.array([len(row) for row in rows])
  tokens_BT = np.zeros((len(rows), lengths_B.max()), np.int32)
  is_answer_BKT = np.zeros((len(rows), 2, lengths_B.max()), bool)
  for b, length in enumerate(lengths_B):
    tokens_BT[b, :length], is_answer_BKT[b, :, :length] = rows[b], is_answer[b]
  return tokens_BT, is_answer_BKT, lengths_B


def plain_logp(setup, params, tokens_BT, lengths_B):
  """log pi over the vocabulary before each token but the first, at the sampler's temperature."""
  positions_BT = np.tile(np.arange(tokens_BT.shape[1], dtype=np.int32), (len(tokens_BT), 1))
  run = compiled_decoder(setup.base.decoder.config)
  _, logits_BTV = run(params, tokens_BT, positions_BT, positions_BT < lengths_B[:, None])
  return jax.nn.log_softmax(logits_BTV[:, :-1] / setup.config.rollout.temperature)


def plain_rewards(config, reward_BK):
  """Shaped rewards and advantages: loops over the rows of a problem."""
  s = config.stage
  shaped_BK = np.array(s.reward_weight) * reward_BK
  shaped_BK[:, 1] += s.bonus[1] * (reward_BK[:, 1] - reward_BK[:, 0])
  shaped_BK[:, 0] += s.discount * shaped_BK[:, 1]
  adv_BK = shaped_BK.copy()
  for b in range(P * G) if config.objective.baseline != 'none' else ():
    others = [j for j in range(b // G * G, b // G * G + G) if j != b]
    alike = [j for j in others if reward_BK[j, 0] == reward_BK[b, 0]]
    less = shaped_BK[:, 1] + s.bonus[1] * reward_BK[:, 0]
    adv_BK[b, 0] -= shaped_BK[others, 0].mean()
    adv_BK[b, 1] -= (
      shaped_BK[alike, 1].mean() if alike else less[others].mean() - s.bonus[1] * reward_BK[b, 0]
    )
  return shaped_BK, adv_BK


def plain_update(config, params, gradients):
  """Adam's first step: its moments are the clipped gradient and its square."""
  o, leaves = config.optimizer, jax.tree.leaves(gradients)
  shrink = min(1.0, o.clip_norm / np.sqrt(sum((x**2).sum() for x in map(np.float64, leaves))))

  def moved(x, gradient):
    g = shrink * np.float64(gradient)
    return x - o.learning_rate * (g / (np.abs(g) + o.eps) + o.weight_decay * x)

  return jax.tree.map(moved, params, gradients)


@pytest.fixture(scope='module')
def by_hand(stepped):
  """The step's episodes, laid out and scored by plain means."""
  setup, start, experience, _, _ = stepped
  e, problems, config = experience.episode, experience.problems, setup.config
  tokens_BT, is_answer_BKT, lengths_B = plain_rows(setup, e, problems)
  draws = [np.random.default_rng((SEED, 1, problem.id)).random() for problem in problems]
  # Turn 1 of some problems is the base model's, and not sampled.
  is_own_B = np.array(draws) >= config.rollout.base_turn1_share
  mask_BKT = is_answer_BKT & np.stack([is_own_B, np.ones_like(is_own_B)], 1)[..., None]
  reference = start if config.stage.reference == 'init' else setup.base.params
  logp_BTV, ref_BTV = (
    np.asarray(plain_logp(setup, params, tokens_BT, lengths_B)) for params in (start, reference)
  )
  decode, of_turn = setup.base.tokenizer.decode, range(2)
  texts = [
    [decode(tokens_BT[b, is_answer_BKT[b, k]].tolist()) for b in range(P * G)] for k in of_turn
  ]
  verdicts = [grade(problems, turn) for turn in texts]
  graded = [[v.reward for v in turn] for turn in verdicts]
  if share := config.train.random_reward:
    rows = [(SEED, 1, problem.id, b % G) for b, problem in enumerate(problems)]
    draws = [[np.random.default_rng((*row, k)).random() for row in rows] for k in of_turn]
    graded = np.array(draws) < share
  return types.SimpleNamespace(
    tokens_BT=tokens_BT,
    lengths_B=lengths_B,
    is_answer_BKT=is_answer_BKT,
    mask_BKT=mask_BKT[..., 1:],
    is_sampled_BT=mask_BKT.any(axis=1),
    logp_BTV=logp_BTV,
    ref_BTV=ref_BTV,
    reasons=[v.reason for turn in verdicts for v in turn],
    reward_BK=np.array(graded, np.float64).T,
  )


def chosen(logp_BTV, tokens_BT):
  """Of each token but the first."""
  return jnp.take_along_axis(logp_BTV, tokens_BT[:, 1:, None], -1)[..., 0]


def test_a_step_samples_what_the_config_says(stepped, by_hand):
  setup, _, experience, _, _ = stepped
  order = np.random.default_rng((SEED, 0)).permutation(len(setup.prompts.problems))
  want = [setup.prompts.problems[i].id for i in order[:P]]
  assert [problem.id for problem in experience.problems] == np.repeat(want, G).tolist()
  assert tuple(by_hand.is_answer_BKT.sum(axis=-1).max(axis=0)) == TURN_TOKENS
  follow = setup.base.tokenizer.followup_ids(setup.task.instruction)
  slots = setup.config.rollout.prompt_tokens + TURN_TOKENS[0] + 1 + len(follow) + TURN_TOKENS[1]
  assert experience.episode.tokens.shape == (P * G, slots)
  drawn = chosen(by_hand.logp_BTV, by_hand.tokens_BT)[by_hand.is_sampled_BT[:, 1:]]
  e = experience.episode
  np.testing.assert_allclose(e.sampled_logp[e.is_sampled], drawn, atol=1e-4)
  np.testing.assert_array_equal(experience.reward_BK, by_hand.reward_BK)


def test_a_step_tells_what_happened(stepped, by_hand):
  setup, _, experience, state, metrics = stepped
  stage, reward_BK, mask_BKT = setup.config.stage, by_hand.reward_BK, by_hand.mask_BKT
  pi_BTV = np.exp(by_hand.logp_BTV)
  kl_BT = (pi_BTV * (by_hand.logp_BTV - by_hand.ref_BTV)).sum(axis=-1)
  entropy_BT = -(pi_BTV * by_hand.logp_BTV).sum(axis=-1)
  shaped_BK, adv_BK = plain_rewards(setup.config, reward_BK)
  found = {}
  for k in range(2):
    n_B = mask_BKT[:, k].sum(axis=-1)
    own = n_B > 0
    mixed = [0 < group.sum() < G for group in reward_BK[:, k].reshape(P, G)]
    found |= {
      f'train/reward_t{k + 1}': reward_BK[:, k].mean(),
      f'train/shaped_t{k + 1}': shaped_BK[:, k].mean(),
      f'train/adv_std_t{k + 1}': adv_BK[:, k].std(),
      f'train/mixed_t{k + 1}': np.mean(mixed),
      f'train/kl_t{k + 1}_nats': (kl_BT * mask_BKT[:, k]).sum(axis=-1)[own].mean(),
      f'train/kl_weight_t{k + 1}': stage.kl_weight[k],
      f'train/entropy_t{k + 1}_nats': (
        ((entropy_BT * mask_BKT[:, k]).sum(axis=-1)[own] / n_B[own]).mean()
      ),
      f'train/length_t{k + 1}_tokens': n_B[own].mean(),
      f'train/truncated_t{k + 1}': experience.episode.is_truncated[:, k].mean(),
    }
  turn1, turn2 = reward_BK.T
  found |= {
    'train/reward_sum': (turn1 + turn2).mean(),
    'train/i2c_t12': ((1 - turn1) * turn2).mean(),
    'train/c2i_t12': (turn1 * (1 - turn2)).mean(),
    'train/graded_right': by_hand.reasons.count('right') / len(by_hand.reasons),
  }
  assert 0 < found['train/i2c_t12'] != found['train/c2i_t12'] > 0
  assert {key: metrics[key] for key in found} == pytest.approx(found, rel=2e-4, abs=2e-6)
  if targets := stage.kl_target_nats:
    error = found['train/kl_t1_nats'] / targets[0] - 1
    assert 0.05 < abs(error) < 0.2  # so that it is not clipped
    np.testing.assert_allclose(state.kl_scale, [1 + error, 1.0], rtol=1e-5)


def test_a_step_moves_the_parameters_as_the_config_says(stepped, by_hand):
  setup, start, _, state, _ = stepped
  config, tokens_BT = setup.config, by_hand.tokens_BT
  _, adv_BK = plain_rewards(config, by_hand.reward_BK)
  m_BKT = by_hand.mask_BKT.astype(np.float32)
  ref_BT = np.asarray(chosen(by_hand.ref_BTV, tokens_BT))

  def loss(params):
    logp_BTV = plain_logp(setup, params, tokens_BT, by_hand.lengths_B)
    logp_BT = chosen(logp_BTV, tokens_BT)
    if config.objective.kl_estimator == 'k2':
      own_BT = (logp_BT - ref_BT) ** 2 / 2  # each token for itself alone
    else:
      own_BT = (jnp.exp(logp_BTV) * (logp_BTV - by_hand.ref_BTV)).sum(axis=-1)
    reinforce = (m_BKT * adv_BK[..., None] * logp_BT[:, None]).sum()
    weight_K1 = np.array(config.stage.kl_weight)[:, None]
    return ((m_BKT * weight_K1 * own_BT[:, None]).sum() - reinforce) / (P * G)

  want = plain_update(config, start, jax.jit(jax.grad(loss))(start))
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4), state.trainable, want)
