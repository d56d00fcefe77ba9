"""Evaluations of other turns than training's: more of them, Self-Refine; what is told meanwhile."""

import runpy

import pytest

from score_jax.evaluation import protocol
from score_jax.runs.watchdog import Watchdog
from score_jax.setup import run as setup_run
from score_jax.setup.policy import Policy


@pytest.fixture(scope='module')
def setup(tiny_run):
  setup = setup_run.prepare(runpy.run_path(str(tiny_run))['get_config']())
  yield setup
  setup.task.close()


@pytest.fixture
def evaluate(setup):
  """(config, temperature, **how) -> 8 problems, answered greedily."""

  def run(config, **how):
    policy = Policy.of_base(config, setup.base)
    planned = protocol.plan_evaluation(policy, setup.task, 0.0, 8)
    return protocol.evaluate_planned(planned, setup.task, **how)

  return run


def changed(setup, **how):
  config = setup.config.copy_and_resolve_references()
  config.eval.update(how)
  return config


def test_more_turns_and_self_refine_are_evaluations(setup, evaluate):
  task, tokenizer = setup.task, setup.base.tokenizer
  found = evaluate(changed(setup, turn_tokens=(4, 4, 3, 3)))
  assert {len(r['answers']) for r in found.records} == {4}
  assert {'acc_t4', 'delta_t1t4', 'changed_t34'} <= found.metrics.keys()
  assert len({r['answers'][0] for r in found.records}) > 1

  told, watchdog = [], Watchdog('', 0.0)
  watchdog.at = lambda *x: told.append(x)
  plain = evaluate(changed(setup, batch=5), watchdog=watchdog)
  deeds = ['problems sampled', 'turn 1 graded', 'turn 2 graded']
  assert told == [(count, deed) for count in (5, 8) for deed in deeds]
  # Later turns do not reach back.
  assert [r['answers'][:2] for r in found.records] == [r['answers'] for r in plain.records]

  config = changed(setup, protocol='self_refine', feedback_tokens=5)
  spec = protocol.make_spec(config, task, tokenizer)
  assert spec.turn_tokens == (4, 5, 4)
  assert spec.followup_ids == tuple(
    tuple(tokenizer.followup_ids(text)) for text in protocol.SELF_REFINE
  )
  refined = evaluate(config)
  assert {(len(r['answers']), len(r['between'])) for r in refined.records} == {(2, 1)}
  assert [r['answers'][0] for r in refined.records] == [r['answers'][0] for r in plain.records]


def test_an_unknown_protocol_is_refused(setup):
  config = changed(setup, protocol='self_rephrase')
  with pytest.raises(ValueError, match='self_rephrase.*self_refine'):
    protocol.make_spec(config, setup.task, setup.base.tokenizer)


def test_more_problems_than_there_are_are_refused(setup):
  policy = Policy.of_base(setup.config, setup.base)
  with pytest.raises(ValueError, match='num_problems=11, but the split has 10'):
    protocol.make_prompts(policy, setup.task, 11)
  assert [p.id for p in protocol.make_prompts(policy, setup.task, 5).problems] == [
    setup.task.test[i].id for i in (0, 2, 4, 6, 8)
  ]
