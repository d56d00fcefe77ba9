"""The small policy's pretraining: how a example is laid out, and what a weights folder gets."""

import dataclasses

import jax
import numpy as np
import pytest
from makers import ROOT
from ml_collections import ConfigDict

from score_jax.core.config import read_config
from score_jax.formats import weights_folder
from score_jax.tasks.arithmetic import INSTRUCTION, question_text, worked_answer
from score_jax.tasks.mixture import Example
from score_jax.tokenizers.base import SentencePieceTokenizer
from score_jax.training import pretraining
from score_jax.training.loop import TrainingStopped

WORKED = worked_answer([1, 2, 3])


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


@pytest.mark.parametrize('is_first_target', [True, False])
def test_an_example_lies_as_the_rollout_would_lay_it(tokenizer, is_first_target):
  example = Example(question_text([1, 2, 3]), WORKED, is_first_target, WORKED)
  (end,) = tokenizer.end_of_turn_ids
  parts = [
    (tokenizer.prompt_ids(example.question), False),
    ([*tokenizer.encode(WORKED), end], is_first_target),
    (tokenizer.followup_ids(INSTRUCTION), False),
    ([*tokenizer.encode(WORKED), end], True),
  ]
  ids, is_target = pretraining.encode_example(example, tokenizer, first_turn_tokens=10)
  assert ids == [i for part, _ in parts for i in part]
  assert is_target == [trained for part, trained in parts for _ in part]


def test_a_first_answer_is_cut_at_its_budget_and_its_end_is_not_trained(tokenizer):
  example = Example(question_text([1, 2, 3]), WORKED, True, WORKED)
  (end,) = tokenizer.end_of_turn_ids
  start = len(tokenizer.prompt_ids(example.question))
  ids, is_target = pretraining.encode_example(example, tokenizer, first_turn_tokens=3)
  assert ids[start : start + 4] == [*tokenizer.encode(WORKED)[:3], end]
  assert is_target[start : start + 4] == [True] * 3 + [False]


def test_a_batch_holds_whole_examples(config, tokenizer):
  mixture = pretraining.mixture_of(config.phases[0], config)

  def draw(length):
    rng = np.random.default_rng(0)
    return pretraining.draw_batch(rng, mixture, tokenizer, 3, config.first_turn_tokens, length)

  batch = draw(config.length)
  rows = zip(batch.tokens, batch.is_token, batch.is_target, strict=True)
  assert batch.tokens.shape == (3, config.length)
  for tokens, is_token, is_target in rows:
    count = is_token.sum()
    assert is_token[:count].all() and not (is_target & ~is_token).any() and is_target[count - 1]
    assert not tokens[count:].any()
  with pytest.raises(ValueError, match='config.length=9 is too short for an example of'):
    draw(9)


def test_the_mixture_is_told_in_numbers(config):
  phases = [(phase.steps, pretraining.mixture_of(phase, config)) for phase in config.phases]
  told = pretraining.describe_mixture(phases, batch=1000).splitlines()
  assert told[2:] == [
    '| 1,000 | 80.0% | 10.0% | 80.0% / 80.0% | 0.0% |',
    '| 1,000 | 15.0% | 40.0% | 1.2% / 0.2% | 16.0% |',
  ]


def test_a_base_policy_is_a_weights_folder(config, tmp_path, monkeypatch):
  batches, mixtures, draw_batch = [], [], pretraining.draw_batch
  config.level_weights = ConfigDict({'3': 1.0, '4': 2.5})

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
  assert batches == [(4, config.length)] * 2  # a step of each phase, in order
  names = ('worked_t1', 'wrong_t1', 'worked_t2', 'worked_again_t2', 'changed_t2')
  assert [dataclasses.asdict(mixture) for mixture in mixtures] == [
    {name: phase[name] for name in names} | {'level_weights': {3: 1.0, 4: 2.5}}
    for phase in config.phases
  ]
  decoder = weights_folder.read_config(tmp_path)
  params = weights_folder.read_params(tmp_path, decoder)
  assert decoder.num_layers == 1
  assert sum(x.size for x in jax.tree.leaves(params)) == count
  assert SentencePieceTokenizer(tmp_path / 'tokenizer.model').vocab_size == decoder.vocab_size


@pytest.mark.parametrize(('counts', 'is_finite'), [((1, 2), 0.0), ((1, 1), 1.0)])
def test_a_policy_that_is_not_finite_is_not_saved(config, tmp_path, monkeypatch, counts, is_finite):
  """The last update left what is not finite, or one was not applied."""

  def make_step(policy, optimizer, chunk):
    def step(state, frozen, batch):
      state = state.replace(step=jax.numpy.int32(counts[int(state.step > 0)]))
      return state, {'train/loss_nats': 0.0, 'train/is_finite': is_finite}

    return step

  monkeypatch.setattr(pretraining, 'make_supervised_step', make_step)
  with pytest.raises(TrainingStopped, match=f'after {counts[1]} of 2 updates loss, .* not finite'):
    pretraining.make_base(config, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['tokenizer.model']
