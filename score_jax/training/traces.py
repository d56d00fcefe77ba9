"""Traces to imitate, made from the current policy's own samples: the data of STaR and Pair-SFT.

    STaR      (question, first answer, second answer) of one episode whose second answer is right
    Pair-SFT  the same, the second answer drawn from all right answers that were sampled for the
              question, at either turn

`D` keeps wrong first answers only; `D+` adds right ones. The second answer is what is trained; the
first is context. Everything is token ids as they were sampled.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from score_jax.core.types import Episode
from score_jax.training.supervised import TraceBatch, unpacked

METHODS = ('star', 'pair_sft')


@dataclasses.dataclass(frozen=True)
class Sample:
  """One graded episode of two turns.

  Attributes:
    problem_id: which problem.
    prompt_ids: token ids of the prompt.
    answer_ids: token ids of both answers, as sampled.
    is_truncated: of each turn, whether its budget cut it off.
    is_right: of each turn.
  """

  problem_id: int
  prompt_ids: Sequence[int]
  answer_ids: tuple[list[int], list[int]]
  is_truncated: tuple[bool, bool]
  is_right: tuple[bool, bool]


@dataclasses.dataclass(frozen=True)
class Trace:
  """A first answer and what should be said after it.

  Attributes:
    sample: the episode that the first answer is of.
    second_ids: token ids of the second answer, as sampled; not always of the same episode.
  """

  sample: Sample
  second_ids: list[int]


def read_samples(
  episode: Episode,
  problem_ids: Sequence[int],
  prompt_ids: Sequence[Sequence[int]],
  reward_BK: np.ndarray,
) -> list[Sample]:
  """Takes episodes of two turns apart.

  Args:
    episode: B rows, on the host.
    problem_ids: of the B rows.
    prompt_ids: of the B rows.
    reward_BK: f32[B, 2].

  Returns:
    B samples.
  """

  def ids(b, k):
    return episode.tokens[b][episode.turn[b] == k + 1].tolist()

  return [
    Sample(
      problem_id,
      prompt,
      (ids(b, 0), ids(b, 1)),
      tuple(episode.is_truncated[b].tolist()),
      tuple((reward_BK[b] > 0).tolist()),
    )
    for b, (problem_id, prompt) in enumerate(zip(problem_ids, prompt_ids, strict=True))
  ]


def build_traces(
  samples: Iterable[Sample], method: str, keep_correct: bool, seed: int
) -> list[Trace]:
  """Selects and pairs what is imitated.

  Args:
    samples: of the current policy.
    method: one of `METHODS`.
    keep_correct: False is the paper's D, wrong first answers only; True is D+.
    seed: of the pairing; a problem's pairs depend on nothing but its own samples.

  Returns:
    Traces, in the order of the samples.

  Raises:
    ValueError: for an unknown method.

  Source: arXiv:2409.12917, Sec. 4.
  """
  if method not in METHODS:
    raise ValueError(f'config.supervised.method={method!r} is none of {METHODS}')
  samples = list(samples)
  chosen = [s for s in samples if keep_correct or not s.is_right[0]]
  if method == 'star':
    return [Trace(s, s.answer_ids[1]) for s in chosen if s.is_right[1]]
  right: dict[int, list[list[int]]] = {}
  for s in samples:
    right.setdefault(s.problem_id, []).extend(
      ids for ids, is_right in zip(s.answer_ids, s.is_right, strict=True) if is_right
    )
  rngs = {i: np.random.default_rng((seed, i)) for i in right}
  return [
    Trace(s, right[s.problem_id][rngs[s.problem_id].integers(len(right[s.problem_id]))])
    for s in chosen
    if right[s.problem_id]
  ]


def batch_traces(
  traces: Sequence[Trace],
  followup_ids: Sequence[int],
  end_id: int,
  num_rows: int,
  length_bucket: int,
) -> TraceBatch:
  """Lays traces out as the rollout would have: a cut answer's end of turn, and the instruction.

  Args:
    traces: at most `num_rows`.
    followup_ids: token ids between the two answers.
    end_id: appended to a first answer that was cut off.
    num_rows: B; rows beyond the traces are empty and teach nothing.
    length_bucket: T is a multiple of this.

  Returns:
    The batch, on the host.
  """
  rows = []
  for trace in traces:
    s = trace.sample
    end = [end_id] if s.is_truncated[0] else []
    rows.append(([*s.prompt_ids, *s.answer_ids[0], *end, *followup_ids], trace.second_ids))
  longest = max(len(context) + len(target) for context, target in rows)
  shape = (num_rows, -(-longest // length_bucket) * length_bucket)
  tokens, is_token = np.zeros(shape, np.int32), np.zeros(shape, bool)
  is_target = np.zeros(shape, bool)
  for b, (context, target) in enumerate(rows):
    end = len(context) + len(target)
    tokens[b, :end] = [*context, *target]
    is_token[b, :end] = True
    is_target[b, len(context) : end] = True
  return unpacked(tokens, is_token, is_target)
