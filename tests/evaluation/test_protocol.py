"""Evaluations of other turns than training's: more of them, Self-Refine; what is told meanwhile.

And what an evaluation takes from the config, against the distribution that it should draw from.
"""

import runpy

import numpy as np
import pytest
from small_models import compiled_decoder

from score_jax.evaluation import protocol
from score_jax.rollout.sampler import EVAL_STEP, EpisodeRow
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
  # All are sampled in one go, and graded batch by batch.
  deeds = ['problems sampled', 'turn 1 graded', 'turn 2 graded']
  assert told[-6:] == [(done, deed) for done in (5, 8) for deed in deeds]
  assert set(told[:-6]) == {(0, 'sampling')}
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


def cut_logp(logits, temperature, top_k, top_p):
  """log-probabilities of one token, by hand: divided, the k most likely, of these the p first."""
  p = np.exp((logits - logits.max()) / temperature)
  order = np.argsort(-p, kind='stable')[:top_k]
  p = p / p[order].sum()
  kept = order[: 1 + np.searchsorted(np.cumsum(p[order]), top_p)]
  found = np.full(p.shape, -np.inf)
  found[kept] = np.log(p[kept] / p[kept].sum())
  return found


def test_an_evaluation_samples_what_the_config_says(setup, monkeypatch):
  """No value is training's."""
  how = dict(temperature=0.6, top_k=5, top_p=0.5, turn_tokens=(2, 5, 3), num_problems=5, batch=3)
  config, taken = changed(setup, **how), []
  config.seed = 7
  config.rollout.temperature = 1.5
  policy, tokenizer = Policy.of_base(config, setup.base), setup.base.tokenizer
  monkeypatch.setattr(protocol, 'evaluate', lambda *args, **_: taken.append(args))
  for given in ((), (0.0, 2)):  # the config's, then others
    protocol.evaluate_policy(policy, setup.task, *given)
  (sampler, prompts, task), (greedy, two, _) = taken
  assert (sampler.batch, sampler.seed, greedy.temperature, len(two.problems)) == (3, 7, 0.0, 2)
  assert [p.id for p in prompts.problems] == [setup.task.test[i].id for i in (0, 2, 4, 6, 8)]
  rows = [
    EpisodeRow(ids, p.id, g)
    for ids, p in zip(prompts.ids, prompts.problems, strict=True)
    for g in range(4)
  ]
  (end,), follow = tokenizer.end_of_turn_ids, tokenizer.followup_ids(task.instruction)
  run, longest = compiled_decoder(setup.base.decoder.config), np.zeros(3, int)
  texts = []
  for part, e in sampler.sample(rows, EVAL_STEP):
    for b, row in enumerate(rows[part]):
      answers = [e.tokens[b][e.turn[b] == k + 1].tolist() for k in range(3)]
      longest = np.maximum(longest, list(map(len, answers)))
      texts.append([tokenizer.decode(answer) for answer in answers])
      tokens, places = list(row.prompt_ids), []
      for k, answer in enumerate(answers):
        if k:
          tokens += [end] * (end not in answers[k - 1]) + follow
        places += range(len(tokens), len(tokens) + len(answer))
        tokens += answer
      assert e.tokens[b][e.is_token[b]].tolist() == tokens
      padded = np.zeros((1, 40), np.int32)
      padded[0, : len(tokens)] = tokens
      slots = np.arange(40, dtype=np.int32)[None]
      logits = np.asarray(run(policy.params, padded, slots, slots < len(tokens))[1])[0]
      want = [cut_logp(logits[i - 1], 0.6, 5, 0.5)[tokens[i]] for i in places]
      np.testing.assert_allclose(e.sampled_logp[b][e.is_sampled[b]], want, atol=1e-4)
  assert longest.tolist() == [2, 5, 3]
  # The first sample of a problem is what an evaluation takes, and its keys are no training step's.
  monkeypatch.undo()
  found = protocol.evaluate_policy(policy, setup.task)
  assert [r['answers'] for r in found.records] == texts[::4] and EVAL_STEP == 2**31 - 1
