"""What an iteration of a supervised baseline takes from its config, by plain means."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from etils import epath

from score_jax.core.config import read_config
from score_jax.setup import run as setup_run
from score_jax.tasks.base import Verdict
from score_jax.training.experience import training_sampler
from score_jax.training.imitate import Imitation

SEED, NUM_PROBLEMS, G, BATCH = 3, 8, 4, 6


def grade(problems, texts):
  """Looks at the problem as well as at the answer, and finds about half of the answers right."""
  return [Verdict(float((p.id + len(t)) % 4 > 1), '') for p, t in zip(problems, texts, strict=True)]


@pytest.fixture(scope='module')
def setup(tiny_run):
  config = read_config(str(tiny_run))
  config.seed, config.optimizer.learning_rate = SEED, 0.125
  config.rollout.update(samples_per_problem=G, temperature=0.7, turn_tokens=(3, 5))
  config.supervised.update(batch=BATCH, epochs=2, num_problems=NUM_PROBLEMS, iterations=2)
  config.eval.batch = NUM_PROBLEMS * G  # one shape for all
  setup = setup_run.prepare(config)
  yield dataclasses.replace(setup, task=dataclasses.replace(setup.task, grade=grade))
  setup.task.close()


def imitation(setup, workdir, method, keep_correct):
  config = setup.config.copy_and_resolve_references()
  config.supervised.update(method=method, keep_correct=keep_correct)
  return Imitation(dataclasses.replace(setup, config=config), epath.Path(workdir))


@pytest.mark.parametrize('keep_correct', [False, True])
@pytest.mark.parametrize('method', ['star', 'pair_sft'])
def test_the_traces_of_an_iteration(setup, tmp_path, method, keep_correct):
  run = imitation(setup, tmp_path, method, keep_correct)
  sampler = training_sampler(setup, {})
  assert (sampler.seed, sampler.temperature, sampler.spec.turn_tokens) == (SEED, 0.7, (3, 5))
  samples = []
  run.samples, make = lambda *args: samples.extend(make(*args)) or samples, run.samples
  with jax.sharding.set_mesh(setup.mesh):
    run.traces(2, None)
  run.close()
  problems = setup.prompts.problems
  order = np.random.default_rng((SEED, 2)).permutation(len(problems))[:NUM_PROBLEMS]
  assert [s.problem_id for s in samples] == [problems[i].id for i in order for _ in range(G)]
  assert len({tuple(map(tuple, s.answer_ids)) for s in samples[:G]}) > 1  # a key for each sample

  right, want, rngs = {}, [], {}
  for s in samples:
    answers = [ids for ids, is_right in zip(s.answer_ids, s.is_right, strict=True) if is_right]
    right.setdefault(s.problem_id, []).extend(answers)
  for s in samples:
    if (s.is_right[0] and not keep_correct) or not right[s.problem_id]:
      continue
    rng = rngs.setdefault(s.problem_id, np.random.default_rng((SEED + 2, s.problem_id)))
    if method == 'pair_sft':
      want.append((s.problem_id, right[s.problem_id][rng.integers(len(right[s.problem_id]))]))
    elif s.is_right[1]:
      want.append((s.problem_id, s.answer_ids[1]))
  lines = (tmp_path / 'traces' / 'iteration02.jsonl').read_text().splitlines()
  assert [(t['problem'], t['second_ids']) for t in map(json.loads, lines)] == want
  assert want


def test_each_iteration_draws_its_own_samples_with_keys_of_its_own(setup, tmp_path):
  """The same problems, answered by the same policy, are answered anew."""
  config = setup.config.copy_and_resolve_references()
  config.supervised.num_problems = 0
  run = imitation(dataclasses.replace(setup, config=config), tmp_path, 'star', True)
  with jax.sharding.set_mesh(setup.mesh):
    one, two = ([s.answer_ids for s in run.samples(i, setup.base.params)] for i in (1, 2))
  run.close()
  assert len(one) == len(two) == G * len(setup.prompts.problems)
  assert np.mean([a != b for a, b in zip(one, two, strict=True)]) > 0.5


def test_the_batches_and_the_updates_of_an_iteration(setup, tmp_path):
  """An order of its own for each epoch; Adam's first update is as long as the rate."""
  run = imitation(setup, tmp_path, 'star', True)
  with jax.sharding.set_mesh(setup.mesh):
    traces = run.traces(2, None)
    per_epoch = -(-len(traces) // BATCH)
    (end,), follow = setup.spec.end_of_turn_ids, list(setup.spec.followup_ids[0])
    for epoch in range(2):
      order = np.random.default_rng((SEED, 2, epoch)).permutation(len(traces))
      for place in range(per_epoch):
        batch = run.batch(traces, 2, epoch * per_epoch + place)
        chosen = [traces[i] for i in order[place * BATCH : (place + 1) * BATCH]]
        assert batch.tokens.shape[0] == BATCH and not batch.is_token[len(chosen) :].any()
        for row, trace in enumerate(chosen):
          first = trace.sample.answer_ids[0]
          context = [*trace.sample.prompt_ids, *first, *[end] * (end not in first), *follow]
          tokens = context + trace.second_ids
          assert batch.tokens[row][batch.is_token[row]].tolist() == tokens
          assert np.flatnonzero(batch.is_target[row]).tolist() == [
            *range(len(context), len(tokens))
          ]
    states, step = [], run.step

    def kept(state, *rest):
      states.append(jax.device_get(state.trainable))
      state, metrics = step(state, *rest)
      states.append(jax.device_get(state.trainable))
      return state, metrics

    run.step = kept
    run.run()
  run.close()
  assert len(states) > 2
  moved = jax.tree.map(lambda x, y: np.abs(y - x).max(), *states[:2])
  assert max(jax.tree.leaves(moved)) == pytest.approx(0.125, rel=1e-3)
