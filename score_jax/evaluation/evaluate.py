"""Evaluation: sample, grade, and sum up what happened."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from score_jax.analysis.statistics import summarise
from score_jax.core.types import Episode
from score_jax.rollout.sampler import EVAL_STEP, EpisodeRow, Sampler, grade_episode
from score_jax.rollout.text import Prompts, turn_texts
from score_jax.tasks.base import Problem, Task
from score_jax.tokenizers.base import Tokenizer


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What an evaluation found.

  Attributes:
    records: one for each problem: id, level, question, answer; and with one entry a turn answers,
      finals (final answers, None where there is none), rewards, reasons, tokens, truncated.
    metrics: see `score_jax.analysis.statistics.summarise`.
    num_left_out: problems whose prompt did not fit its slot.
  """

  records: list[dict]
  metrics: dict[str, dict[str, float]]
  num_left_out: int


def make_records(
  problems: Sequence[Problem],
  episode: Episode,
  task: Task,
  tokenizer: Tokenizer,
  turns: Sequence[int] | None = None,
  graded: Callable[[str], None] = lambda phase: None,
) -> list[dict]:
  """Grades episodes and writes down what happened.

  Args:
    problems: the B rows' problems.
    episode: B rows, on the host.
    task: the grader.
    tokenizer: makes text of ids.
    turns: those that hold answers, counted from 0; None takes all.
    graded: as for `grade_episode`.

  Returns:
    B records, see `Evaluation`; where `turns` leaves some out, with their texts as 'between'.
  """
  every = range(episode.is_truncated.shape[1])
  turns = list(every) if turns is None else list(turns)
  texts, verdicts = grade_episode(episode, problems, task, tokenizer, turns, graded)
  between = [
    turn_texts(episode.tokens, episode.turn, k, tokenizer) for k in every if k not in turns
  ]
  ranks = range(len(turns))
  return [
    {
      'id': problem.id,
      'level': problem.level,
      'question': problem.question,
      'answer': problem.answer,
      'answers': [texts[k][b] for k in ranks],
      'finals': [task.final(texts[k][b]) for k in ranks],
      'rewards': [verdicts[k][b].reward for k in ranks],
      'reasons': [verdicts[k][b].reason for k in ranks],
      'tokens': [int((episode.turn[b] == k + 1).sum()) for k in turns],
      'truncated': [bool(episode.is_truncated[b, k]) for k in turns],
      **({'between': [turn[b] for turn in between]} if between else {}),
    }
    for b, problem in enumerate(problems)
  ]


def evaluate(
  sampler: Sampler,
  prompts: Prompts,
  task: Task,
  first_answer_ids: Sequence[Sequence[int]] | None = None,
  turns: Sequence[int] | None = None,
  at: Callable[[int, str], None] = lambda place, phase: None,
) -> Evaluation:
  """Lets the model answer each problem once, in K turns, with no checker in between.

  Args:
    sampler: the policy.
    prompts: the problems; those whose prompt does not fit are already left out and counted.
    task: the grader, used after the last turn only.
    first_answer_ids: for each problem the token ids of a first answer, its end included, that is
      forced in place of the model's own.
    turns: those that hold answers, counted from 0; None takes all.
    at: told what is done of how many problems, tokens or a batch sampled or a turn graded, as
      `Watchdog.at`.

  Returns:
    Records in the problems' order, and metrics.
  """
  forced = first_answer_ids or [None] * len(prompts.problems)
  rows = [
    EpisodeRow(ids, problem.id, first_answer_ids=first)
    for ids, problem, first in zip(prompts.ids, prompts.problems, forced, strict=True)
  ]
  records = []
  got_on = functools.partial(at, 0, 'sampling')
  sampler = dataclasses.replace(sampler, on_round=got_on)
  for part, episode in sampler.sample(rows, EVAL_STEP):
    at(part.stop, 'problems sampled')
    graded = functools.partial(at, part.stop)
    problems = prompts.problems[part]
    records += make_records(problems, episode, task, sampler.tokenizer, turns, graded)
  return Evaluation(records, summarise(records), prompts.num_too_long)
