"""Samples whole episodes of many problems: rows, slots, keys, rollout.

    EpisodeRow -> Sampler.place -> PlacedRows -> Sampler.sample_placed -> Episode

Training samples a step's rows in one such batch; `Sampler.sample` goes through any number of rows
part by part, for evaluations, votes, traces and repair.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from score_jax.core import sharding
from score_jax.core.types import Episode
from score_jax.model.decoder import Decoder
from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.multi_turn import rollout
from score_jax.rollout.schedule import Answer
from score_jax.rollout.text import fill_slots, turn_texts
from score_jax.tasks.base import Task
from score_jax.tokenizers.base import Tokenizer

# Names an evaluation's random keys, apart from those of training steps.
EVAL_STEP = 2**31 - 1
# Batches that are sampled in one go: slots stand idle at its end alone.
_PARTS = 4


def grade_episode(
  episode: Episode,
  problems,
  task: Task,
  tokenizer: Tokenizer,
  turns: Sequence[int] | None = None,
  graded: Callable[[str], None] = lambda phase: None,
) -> tuple[list[list[str]], list[list]]:
  """Reads and grades the turns of every row.

  Args:
    episode: B rows, on the host.
    problems: the B rows' problems.
    task: the grader.
    tokenizer: makes text of ids.
    turns: those that hold answers, counted from 0; None takes all.
    graded: told after each turn which one was graded.

  Returns:
    Texts and verdicts, each as K lists of B, K the number of `turns`.
  """
  turns = range(episode.is_truncated.shape[1]) if turns is None else turns
  texts = [turn_texts(episode.tokens, episode.turn, k, tokenizer) for k in turns]
  verdicts = []
  for k, answers in zip(turns, texts, strict=True):
    verdicts.append(task.grade(problems, answers))
    graded(f'turn {k + 1} graded')
  return texts, verdicts


@dataclasses.dataclass(frozen=True)
class EpisodeRow:
  """One episode to sample.

  Attributes:
    prompt_ids: token ids of the prompt.
    problem_id: names the random keys.
    sample: which sample of the problem it is.
    first_answer_ids: turn 1, end included, where it is forced and not sampled: in all rows or none.
  """

  prompt_ids: Sequence[int]
  problem_id: int
  sample: int = 0
  first_answer_ids: Sequence[int] | None = None


@dataclasses.dataclass(frozen=True)
class PlacedRows:
  """A batch of rows in slots, on the host, each with its random key: those of this process.

  Attributes:
    prompt_BT: i32[B, T] token ids of the prompts.
    is_prompt_BT: bool[B, T].
    keys_B: the random key of each episode.
    forced: by turn, answers that are not sampled, as for `rollout`.
  """

  prompt_BT: np.ndarray
  is_prompt_BT: np.ndarray
  keys_B: jax.Array
  forced: Mapping[int, tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Sampler:
  """A policy, and how it is sampled.

  Attributes:
    decoder: the model.
    spec: budgets and instructions.
    params: the policy's parameters.
    tokenizer: makes text of ids.
    batch: rows that are decoded at once, over all devices; 0 for all.
    temperature: 0 is greedy.
    seed: of the samples, at a temperature above 0.
    mesh: the devices.
    on_round: called after each block of tokens, and each program that is compiled: as often by all
      processes.
  """

  decoder: Decoder
  spec: RolloutSpec
  params: dict
  tokenizer: Tokenizer
  batch: int
  temperature: float
  seed: int
  mesh: jax.sharding.Mesh
  on_round: Callable[[], None] = lambda: None

  def sample(self, rows: Sequence[EpisodeRow], step: int) -> Iterator[tuple[slice, Episode]]:
    """Samples one episode for each row, as many at once as there are slots.

    With several processes, each samples its share, and all get all of it.

    Args:
      rows: what to sample; those of a problem lie together, and so share its prompt.
      step: names the random keys: a training step, or a number apart from those.

    Yields:
      (which of the rows, their episodes on the host), at most `batch` of them at a time, so that
      whoever grades them is not long about it.

    Raises:
      ValueError: as `place` and `rollout`.
    """
    batch = self.batch or max(len(rows), 1)
    # Parts of about equal size: so the last one runs the same programs as the others.
    num_parts = -(-len(rows) // (_PARTS * batch))
    for i in range(num_parts):
      start, stop = (len(rows) * n // num_parts for n in (i, i + 1))
      # The same number on each process: a share that is short repeats the last row.
      here = -(-(stop - start) // jax.process_count())
      first = start + jax.process_index() * here
      mine = [rows[min(first + n, len(rows) - 1)] for n in range(here)]
      episode = sharding.all_rows(self.sample_placed(self.place(mine, step)))
      for at in range(start, stop, batch):
        part = slice(at, min(at + batch, stop))
        here = slice(part.start - start, part.stop - start)
        yield part, jax.tree.map(lambda x, here=here: x[here], episode)

  def place(self, rows: Sequence[EpisodeRow], step: int) -> PlacedRows:
    """Puts rows into slots, each with its random key.

    Args:
      rows: of this process; those of all processes are a batch.
      step: names the random keys.

    Returns:
      The batch.

    Raises:
      ValueError: if a prompt or a first answer does not fit its slots.
    """
    forced = {}
    if rows[0].first_answer_ids is not None:
      answers = [row.first_answer_ids for row in rows]
      forced[0] = fill_slots(answers, self.spec.turn_tokens[0])
    problems = np.asarray([row.problem_id for row in rows], np.int32)
    samples = np.asarray([row.sample for row in rows], np.int32)
    return PlacedRows(
      *fill_slots([row.prompt_ids for row in rows], self.spec.prompt_tokens),
      episode_keys(self.seed, step, problems, samples),
      forced,
    )

  def sample_placed(
    self,
    placed: PlacedRows,
    on_answers: Callable[[Sequence[Answer]], None] | None = None,
    counts: collections.Counter | None = None,
  ) -> Episode:
    """Samples one batch.

    Args:
      placed: from `place`, by this sampler or another one with as many slots for prompts.
      on_answers: as for `rollout`.
      counts: as for `rollout`.

    Returns:
      The episodes, on the host: those of this process.

    Raises:
      ValueError: as `rollout`.
    """
    with jax.sharding.set_mesh(self.mesh):
      return rollout(
        self.decoder,
        self.spec,
        self.params,
        placed.prompt_BT,
        placed.is_prompt_BT,
        placed.keys_B,
        self.temperature,
        placed.forced,
        on_answers,
        self.batch or None,
        counts=counts,
        on_round=self.on_round,
      )
