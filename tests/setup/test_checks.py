"""What is checked of a run before its model is loaded: inputs, batch, problems, the base's uses."""

import jax
import pytest
from makers import ROOT

from score_jax.core.config import default_config
from score_jax.setup import run as setup_run
from score_jax.setup.checks import check_batch, check_problems, missing_inputs


def test_missing_inputs_lists_each_once():
  config = default_config()
  config.task.name = 'math'
  config.init.required = True
  lines = missing_inputs(config)
  assert len(lines) == 3
  config.model.checkpoint = 'embedded'
  config.data.path = str(ROOT)
  config.init.path = str(ROOT)
  assert missing_inputs(config) == []


@pytest.mark.parametrize(
  ('problems', 'samples', 'parts', 'devices', 'advice'),
  [
    (3, 2, 1, 4, 'take other numbers'),
    (4, 2, 3, 1, 'take micro_batches=2$'),
    (64, 8, 8, 128, 'take micro_batches=4$'),
    (0, 2, 1, 1, 'at least 1'),
  ],
)
def test_a_batch_that_does_not_divide_is_refused(problems, samples, parts, devices, advice):
  config = default_config()
  config.rollout.problems_per_step = problems
  config.rollout.samples_per_problem = samples
  config.train.micro_batches = parts
  with pytest.raises(ValueError, match=f'problems_per_step={problems}.*{advice}'):
    check_batch(config, devices)


def test_traces_that_do_not_divide_are_refused():
  config = default_config()
  config.supervised.batch = 63
  check_batch(config, 2)  # trains by RL
  config.supervised.method = 'star'
  with pytest.raises(ValueError, match=r'supervised\.batch=63 .* by 2 devices; take 64$'):
    check_batch(config, 2)


def test_more_problems_than_there_are_cannot_be_sampled():
  config = default_config()
  config.supervised.num_problems, config.rollout.problems_per_step = 41, 8
  check_problems(config, 40)  # trains by RL
  config.supervised.method = 'star'
  with pytest.raises(ValueError, match='supervised.num_problems=41, but there are 40'):
    check_problems(config, 40)


def test_processes_share_the_problems_of_a_step(monkeypatch):
  config = default_config()
  config.rollout.problems_per_step = 3
  check_problems(config, 3)
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(ValueError, match='problems_per_step=3 is not a multiple of 2 processes'):
    check_problems(config, 10)


@pytest.mark.parametrize(
  ('name', 'file'),
  [
    ('math', 'math/train.jsonl'),
    ('gsm8k', 'gsm8k/train.jsonl'),
    ('mbpp', 'mbpp/mbpp.jsonl'),
    ('humaneval', 'humaneval/HumanEval.jsonl.gz'),
  ],
)
def test_missing_data_is_named_unless_it_may_be_downloaded(name, file):
  config = default_config()
  config.model.checkpoint = 'embedded'
  config.task.name = name
  assert missing_inputs(config) == [f'the folder with {file} is not set: --config.data.path=PATH']
  config.data.path = 'download'
  assert missing_inputs(config) == []
  config.data.path = 'embedded'  # a word for models, not for data
  assert len(missing_inputs(config)) == 1


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'lora': {'rank': 1}}, r'off the devices, but config.lora.rank=1 adapts it'),
    ({'rollout': {'base_turn1_share': 0.5}}, 'base_turn1_share=0.5 samples from it'),
    ({'stage': {'reference': 'init'}}, "stage.reference='init' is another model"),
  ],
)
def test_a_base_model_with_another_use_is_not_offloaded(changes, message):
  config = default_config()
  config.model.offload_reference = True
  for part, values in changes.items():
    config[part].update(values)
  with pytest.raises(ValueError, match=message):
    setup_run.prepare(config)
