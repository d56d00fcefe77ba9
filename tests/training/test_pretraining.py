"""The small policy's pretraining: how an example is laid out, and what a weights folder gets."""

import dataclasses

import jax
import numpy as np
import pytest
from makers import ROOT
from ml_collections import ConfigDict

from score_jax.core.config import read_config
from score_jax.formats import weights_folder
from score_jax.tasks.arithmetic import INSTRUCTION, check, question_text, worked_answer
from score_jax.tasks.mixture import Example, Mixture
from score_jax.tokenizers.base import SentencePieceTokenizer
from score_jax.training import pretraining
from score_jax.training.loop import TrainingStopped

WORKED = worked_answer([1, 2, 3])
WRONG = '= 5'


@pytest.fixture
def config():
  config = read_config(f'{ROOT}/configs/pretrain_arithmetic.py')
  config.batch, config.warmup_steps = 4, 1
  config.model.num_layers = config.model.scan_unroll = 1
  for phase in config.phases:
    phase.steps = 1
  return config


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  path = tmp_path_factory.mktemp('tokenizer') / 'tokenizer.model'
  path.write_bytes(pretraining.train_tokenizer())
  return SentencePieceTokenizer(path)


@pytest.mark.parametrize(
  ('wrong', 'first'), [('', WORKED), (WRONG, ''), (WRONG, check([1, 2, 3], 5))]
)
def test_an_example_lies_as_the_rollout_would_lay_it(tokenizer, wrong, first):
  """A wrong first answer is context; its check, if it has one, and its end are trained."""
  example = Example(question_text([1, 2, 3]), wrong, first, WORKED)
  (end,) = tokenizer.end_of_turn_ids
  parts = [
    (tokenizer.prompt_ids(example.question), False),
    (tokenizer.encode(wrong), False),
    ([*tokenizer.encode(first), end], True),
    (tokenizer.followup_ids(INSTRUCTION), False),
    ([*tokenizer.encode(WORKED), end], True),
  ]
  ids, is_target = pretraining.encode_example(example, tokenizer, first_turn_tokens=11)
  assert ids == [i for part, _ in parts for i in part]
  assert is_target == [trained for part, trained in parts for _ in part]
  text = f'{wrong} {first}'.split()
  assert len(tokenizer.encode(wrong) + tokenizer.encode(first)) == len(text)  # a word, a token


def test_a_first_answer_is_cut_at_its_budget_and_its_end_is_not_trained(tokenizer):
  (end,) = tokenizer.end_of_turn_ids
  for wrong, first, is_trained in (('', WORKED, [True] * 3), (WRONG, WORKED, [False, False, True])):
    example = Example(question_text([1, 2, 3]), wrong, first, WORKED)
    start = len(tokenizer.prompt_ids(example.question))
    ids, is_target = pretraining.encode_example(example, tokenizer, first_turn_tokens=3)
    assert ids[start : start + 4] == [*tokenizer.encode(f'{wrong} {first}'.strip())[:3], end]
    assert is_target[start : start + 4] == [*is_trained, False]


def test_a_batch_holds_whole_examples_and_is_as_long_as_the_longest(config, tokenizer):
  mixture = pretraining.mixture_of(config.phases[1], config)

  def draw(length, levels=None):
    rng = np.random.default_rng(0)
    drawn = dataclasses.replace(mixture, level_weights=levels or mixture.level_weights)
    return pretraining.draw_batch(rng, drawn, tokenizer, 8, config.first_turn_tokens, length)

  for levels in (None, {2: 1.0}):
    batch = draw(config.length, levels)
    longest = batch.is_token.sum(1).max()
    assert longest <= batch.tokens.shape[1] < longest + 8
    assert batch.tokens.shape == batch.is_token.shape == batch.is_target.shape
    assert batch.tokens.shape[1] % 8 == 0 and len(batch.tokens) == 8
    for tokens, is_token, is_target in zip(
      batch.tokens, batch.is_token, batch.is_target, strict=True
    ):
      count = is_token.sum()
      assert is_token[:count].all() and not (is_target & ~is_token).any() and is_target[count - 1]
      assert not tokens[count:].any()
  # No longer than it may be, where that is no multiple of what it is rounded to.
  longest = draw(config.length).is_token.sum(1).max()
  assert draw(longest).tokens.shape[1] == longest
  with pytest.raises(ValueError, match='config.length=9 is too short for an example of'):
    draw(9)


def test_the_mixture_is_told_in_numbers():
  phases = [
    (3, Mixture({3: 1.0, 4: 3.0}, known_terms=4)),
    (20, Mixture({5: 2.0}, known_terms=3, wrong_t1=0.5, checked_t2=0.125, slip=0.08)),
  ]
  # Habits that no phase has are left out.
  assert pretraining.describe_mixture(phases, batch=1000).splitlines() == [
    '| examples | terms (share) | right at turn 1 up to | wrong at turn 1 (context only) '
    '| checked at turn 2 | steps of a check that slip |',
    '|---|---|---|---|---|---|',
    '| 3,000 | 3 (25%), 4 (75%) | 4 terms | 0.0% | 0.0% | 0.0% |',
    '| 20,000 | 5 (100%) | 3 terms | 50.0% | 12.5% | 8.0% |',
  ]


def test_a_phase_has_what_all_phases_share_and_its_own(config):
  config.level_weights, config.known_terms = ConfigDict({'3': 1.0, '4': 2.5}), 3
  shared = pretraining.mixture_of(ConfigDict(dict(steps=5, slip=0.25)), config)
  assert shared == Mixture({3: 1.0, 4: 2.5}, known_terms=3, slip=0.25)
  own = ConfigDict(dict(steps=5, level_weights={'2': 1.0}, known_terms=1, checked_t1=0.5))
  assert pretraining.mixture_of(own, config) == Mixture({2: 1.0}, known_terms=1, checked_t1=0.5)
  with pytest.raises(ValueError, match=r'config.phases: checked, lucky: there is no such habit'):
    pretraining.mixture_of(ConfigDict(dict(steps=5, lucky=1.0, checked=1.0)), config)


@pytest.mark.parametrize(
  ('phase', 'message'),
  [
    (dict(step=5), 'a phase lacks steps'),
    (dict(steps=0), 'steps=0 must be a whole number from 1 on'),
    (dict(steps=2.5), 'steps=2.5 must be a whole number from 1 on'),
    (dict(steps=5, slip='often'), 'slip=often must be a number'),
    (dict(steps=5, known_terms=None), 'known_terms=None must be a number'),
    *(
      (dict(steps=5, level_weights=levels), 'must give numbers of addends from 2 on weights')
      for levels in ({'1': 1.0}, {'x': 1.0}, {'4': 0.0}, {'4': -1.0, '5': 2.0})
    ),
    (dict(steps=5, level_weights={}), 'config.level_weights is empty'),
  ],
)
def test_a_phase_that_cannot_be_is_refused_in_words(config, phase, message):
  config.phases = (*config.phases, ConfigDict(phase))
  with pytest.raises(ValueError, match=message):
    pretraining.phases_of(config)


def test_a_config_without_what_its_phases_share_is_refused_in_words(config):
  del config.known_terms, config.level_weights  # such as one of an earlier version
  with pytest.raises(ValueError, match='config.phases: a phase lacks level_weights, known_terms'):
    pretraining.mixture_of(ConfigDict(dict(steps=5)), config)


@pytest.mark.parametrize('name', ['pretrain_arithmetic', 'pretrain_worked'])
def test_the_longest_example_of_a_config_fits(name, tokenizer):
  """Of the most terms at both turns, each answer as long as its kind may be."""
  config = read_config(f'{ROOT}/configs/{name}.py')
  for phase in config.phases:
    mixture = pretraining.mixture_of(phase, config)
    terms = [9] * max(mixture.level_weights)
    checked, worked = check(terms, 0), worked_answer(terms)
    firsts = [checked] * (mixture.checked_t1 > 0) + [worked] * (mixture.worked_t1 > 0) + [WRONG]
    seconds = [checked] * (mixture.checked_t2 > 0) + [worked] * (mixture.worked_t2 > 0) + [WRONG]
    example = Example(question_text(terms), '', firsts[0], seconds[0])
    ids, _ = pretraining.encode_example(example, tokenizer, config.first_turn_tokens)
    assert len(ids) <= config.length


def test_a_base_policy_is_a_weights_folder(config, tmp_path, monkeypatch):
  batches, mixtures, draw_batch = [], [], pretraining.draw_batch

  def watched(rng, mixture, *rest):
    mixtures.append(mixture)
    return draw_batch(rng, mixture, *rest)

  monkeypatch.setattr(pretraining, 'draw_batch', watched)

  def make_step(policy, optimizer, chunk):  # the step has tests of its own
    def step(state, frozen, batch):
      batches.append(batch.tokens.shape)
      state = state.replace(step=state.step + 1)
      return state, {'train/loss_nats': 0.0, 'train/is_finite': 1.0}

    return step

  monkeypatch.setattr(pretraining, 'make_supervised_step', make_step)
  count = pretraining.make_base(config, tmp_path)
  # A step of each phase, in order.
  assert [rows for rows, _ in batches] == [4] * len(config.phases)
  assert mixtures == [pretraining.mixture_of(phase, config) for phase in config.phases]
  decoder = weights_folder.read_config(tmp_path)
  params = weights_folder.read_params(tmp_path, decoder)
  assert decoder.num_layers == 1
  assert sum(x.size for x in jax.tree.leaves(params)) == count
  assert SentencePieceTokenizer(tmp_path / 'tokenizer.model').vocab_size == decoder.vocab_size


@pytest.mark.parametrize(('counts', 'is_finite'), [((1, 2, 3), 0.0), ((1, 2, 2), 1.0)])
def test_a_policy_that_is_not_finite_is_not_saved(config, tmp_path, monkeypatch, counts, is_finite):
  """The last update left what is not finite, or one was not applied."""

  def make_step(policy, optimizer, chunk):
    def step(state, frozen, batch):
      state = state.replace(step=jax.numpy.int32(counts[int(state.step)]))
      return state, {'train/loss_nats': 0.0, 'train/is_finite': is_finite}

    return step

  monkeypatch.setattr(pretraining, 'make_supervised_step', make_step)
  with pytest.raises(TrainingStopped, match=f'after {counts[2]} of 3 updates loss, .* not finite'):
    pretraining.make_base(config, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['tokenizer.model']


def test_a_warm_up_without_end_is_refused(config, tmp_path):
  config.warmup_steps = 3
  with pytest.raises(ValueError, match='warmup_steps=3 must be below the 3 updates of the phases'):
    pretraining.make_base(config, tmp_path)
