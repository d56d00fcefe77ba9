"""Samples whole episodes of many problems: rows, slots, devices, keys, rollout.

    EpisodeRow -> Sampler.place -> PlacedRows -> Sampler.sample_placed -> Episode

Training samples a step's rows in one such batch; `Sampler.sample` goes through any number of rows
batch by batch, for evaluations, votes, traces and repair.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from score_jax.core import sharding
from score_jax.core.types import Episode
from score_jax.model.decoder import Decoder
from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.multi_turn import rollout
from score_jax.rollout.text import fill_slots, turn_texts
from score_jax.tasks.base import Task
from score_jax.tokenizers.base import Tokenizer

# Names an evaluation's random keys, apart from those of training steps.
EVAL_STEP = 2**31 - 1


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
  """A batch of rows in slots, on the devices.

  Attributes:
    prompt_BT: i32[B, T] token ids of the prompts.
    is_prompt_BT: bool[B, T].
    keys_B: the random key of each episode.
    forced: by turn, answers that are not sampled, as for `rollout`.
    samples_per_prompt: so many rows in a row have the same prompt.
  """

  prompt_BT: jax.Array
  is_prompt_BT: jax.Array
  keys_B: jax.Array
  forced: Mapping[int, tuple[jax.Array, jax.Array]]
  samples_per_prompt: int


@dataclasses.dataclass(frozen=True)
class Sampler:
  """A policy, and how it is sampled.

  Attributes:
    decoder: the model.
    spec: budgets and instructions.
    params: the policy's parameters.
    tokenizer: makes text of ids.
    batch: rows that `sample` takes at once, rounded up to what the devices divide.
    temperature: 0 is greedy.
    seed: of the samples, at a temperature above 0.
    mesh: the devices.
    samples_per_prompt: so many rows in a row have the same prompt, which is run once for those of
      them that share a batch, as far as a batch is cut into equal groups of them.
  """

  decoder: Decoder
  spec: RolloutSpec
  params: dict
  tokenizer: Tokenizer
  batch: int
  temperature: float
  seed: int
  mesh: jax.sharding.Mesh
  samples_per_prompt: int = 1

  def sample(self, rows: Sequence[EpisodeRow], step: int) -> Iterator[tuple[slice, Episode]]:
    """Samples one episode for each row, batch by batch.

    With several processes, each samples its share of a batch, and all get all of it.

    Args:
      rows: what to sample.
      step: names the random keys: a training step, or a number apart from those.

    Yields:
      (which of the rows, their episodes on the host). The last batch is filled up with repeats of
      the last row, which are thrown away. A batch of short prompts has fewer slots for them.
    """
    parts = sharding.batch_rows(self.mesh)
    batch = -(-min(self.batch, len(rows)) // parts) * parts
    share = batch // jax.process_count()
    for start in range(0, len(rows), batch):
      first = start + jax.process_index() * share
      mine = [rows[min(first + i, len(rows) - 1)] for i in range(share)]
      part = slice(start, min(start + batch, len(rows)))
      longest = max(len(row.prompt_ids) for row in rows[part])
      slots = prompt_slots(longest, self.spec.prompt_tokens)
      shorter = dataclasses.replace(self, spec=dataclasses.replace(self.spec, prompt_tokens=slots))
      episode = sharding.all_rows(shorter.sample_placed(shorter.place(mine, step)))
      yield part, jax.tree.map(lambda x, n=part.stop - start: x[:n], episode)

  def place(self, rows: Sequence[EpisodeRow], step: int) -> PlacedRows:
    """Puts rows into slots and onto the devices, each with its random key.

    Args:
      rows: of this process; those of all processes are a batch.
      step: names the random keys.

    Returns:
      The batch.

    Raises:
      ValueError: if a prompt or a first answer does not fit its slots.
    """
    host = {
      'prompt': fill_slots([row.prompt_ids for row in rows], self.spec.prompt_tokens),
      'problems': np.asarray([row.problem_id for row in rows], np.int32),
      'samples': np.asarray([row.sample for row in rows], np.int32),
    }
    if rows[0].first_answer_ids is not None:
      answers = [row.first_answer_ids for row in rows]
      host['first'] = fill_slots(answers, self.spec.turn_tokens[0])
    with jax.sharding.set_mesh(self.mesh):
      x = sharding.put_batch(self.mesh, host)
      keys_B = episode_keys(self.seed, step, x['problems'], x['samples'])
    return PlacedRows(
      *x['prompt'],
      keys_B,
      forced={0: x['first']} if 'first' in x else {},
      # Shares of batches begin at multiples of this.
      samples_per_prompt=math.gcd(self.samples_per_prompt, len(rows)),
    )

  def sample_placed(
    self, placed: PlacedRows, after_turn: Callable[[int, Episode], None] | None = None
  ) -> Episode:
    """Samples one batch.

    Args:
      placed: from `place`, by this sampler or another one with as many slots for prompts.
      after_turn: as for `rollout`.

    Returns:
      The episodes, on the devices.
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
        after_turn,
        placed.samples_per_prompt,
      )


def prompt_slots(longest: int, prompt_tokens: int) -> int:
  """Slots for the prompts of a batch: all of them, a half or a quarter, so that few shapes occur.

  Args:
    longest: tokens of the longest prompt.
    prompt_tokens: slots that there are.

  Example:
    >>> [prompt_slots(longest, 384) for longest in (384, 193, 192, 2)]
    [384, 384, 192, 96]
  """
  slots = [-(-prompt_tokens // parts) for parts in (4, 2)]
  return next((n for n in slots if longest <= n), prompt_tokens)
