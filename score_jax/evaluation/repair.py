"""Repair: collect a policy's failing answers, and let a policy correct such answers in one turn."""

import collections
import dataclasses
from collections.abc import Callable

from score_jax.analysis.statistics import summarise
from score_jax.evaluation.evaluate import Evaluation, make_records
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.sampler import EVAL_STEP, EpisodeRow, Sampler, grade_episode
from score_jax.rollout.text import Prompts
from score_jax.tasks.base import Problem, Task, Verdict

# Names the random keys, apart from those of training steps and evaluations.
REPAIR_STEP = EVAL_STEP - 1


@dataclasses.dataclass(frozen=True)
class Failure:
  """An answer that failed.

  Attributes:
    problem: what it answers.
    text: what was written.
    reason: the checker's.
  """

  problem: Problem
  text: str
  reason: str


@dataclasses.dataclass(frozen=True)
class Failures:
  """What `collect_failures` found.

  Attributes:
    kept: in the order of problems and samples.
    reasons: how many of all samples got each kind of verdict.
  """

  kept: list[Failure]
  reasons: dict[str, int]


def collect_failures(
  sampler: Sampler, prompts: Prompts, task: Task, num_samples: int, num_kept: int
) -> Failures:
  """Samples first answers and keeps those that fail.

  Of the answers of a problem that have the same final answer the first counts; an answer without a
  final answer is nothing to correct and is not kept.

  Args:
    sampler: the policy; only turn 1 of its spec is sampled.
    prompts: the problems.
    task: the grader.
    num_samples: for each problem.
    num_kept: most failures kept of one problem.

  Returns:
    The failures, and the counts of all verdicts.
  """
  spec = sampler.spec.first_turns(1)
  sampler = dataclasses.replace(sampler, spec=spec)
  both = list(zip(prompts.problems, prompts.ids, strict=True))
  problems = [problem for problem, _ in both for _ in range(num_samples)]
  rows = [EpisodeRow(ids, problem.id, g) for problem, ids in both for g in range(num_samples)]
  kept: list[Failure] = []
  seen: dict[int, set[str]] = collections.defaultdict(set)
  reasons: collections.Counter[str] = collections.Counter()
  for part, episode in sampler.sample(rows, REPAIR_STEP):
    (texts,), (verdicts,) = grade_episode(episode, problems[part], task, sampler.tokenizer)
    reasons.update(verdict.kind for verdict in verdicts)
    for problem, text, verdict in zip(problems[part], texts, verdicts, strict=True):
      answer = task.final(text)
      if _is_new_failure(answer, verdict, seen[problem.id], num_kept):
        seen[problem.id].add(answer)
        kept.append(Failure(problem, text, verdict.reason))
  return Failures(kept, dict(reasons))


def _is_new_failure(answer: str | None, verdict: Verdict, seen: set[str], num_kept: int) -> bool:
  # It failed,
  return (
    verdict.reward == 0
    # there is something to correct,
    and answer is not None
    # which is not there yet, and is wanted.
    and answer not in seen
    and len(seen) < num_kept
  )


def check_repair(spec: RolloutSpec) -> None:
  """Refuses an episode that has not two turns; ValueError with their number."""
  if spec.num_turns != 2:
    raise ValueError(
      f'repair takes two turns, the forced one and its correction, not {spec.num_turns}: see '
      'config.eval.turn_tokens and config.eval.protocol'
    )


def evaluate_repair(
  sampler: Sampler, prompts: Prompts, task: Task, first_answer: Callable[[Problem], str]
) -> Evaluation:
  """Shows the model a wrong first answer and lets it correct it once.

  This answer stands where turn 1 stands, as if the model had written it; then come the instruction
  and turn 2, as always.

  Args:
    sampler: the policy, with a spec of two turns; turn 1 gets the slots that the longest first
      answer takes.
    prompts: problems with an `attempt`.
    task: the grader.
    first_answer: a problem -> the text of its first answer.

  Returns:
    As of `score_jax.evaluation.evaluate.evaluate`: `acc_t2` is the share that was repaired, and
    `acc_t1` that of first answers which pass (0, unless a program passes only now and then).

  Raises:
    ValueError: if the spec has not two turns.
  """
  spec, tokenizer = sampler.spec, sampler.tokenizer
  check_repair(spec)
  end = [tokenizer.end_of_turn_ids[0]]
  first_ids = [tokenizer.encode(first_answer(problem)) + end for problem in prompts.problems]
  turn_tokens = (max(map(len, first_ids)), spec.turn_tokens[1])
  sampler = dataclasses.replace(sampler, spec=dataclasses.replace(spec, turn_tokens=turn_tokens))
  rows = [
    EpisodeRow(prompt_ids, problem.id, 0, ids)
    for prompt_ids, problem, ids in zip(prompts.ids, prompts.problems, first_ids, strict=True)
  ]
  records = []
  for part, episode in sampler.sample(rows, EVAL_STEP):
    records += make_records(prompts.problems[part], episode, task, tokenizer)
  return Evaluation(records, summarise(records), prompts.num_too_long)
