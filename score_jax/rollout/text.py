"""Between text and token ids: prompts into slots, episodes back into answers."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from score_jax.core.types import Episode
from score_jax.tasks.base import Problem, Task
from score_jax.tokenizers.base import Tokenizer


@dataclasses.dataclass(frozen=True)
class Prompts:
  """The problems of one split whose prompt fits its slot, tokenised once.

  Attributes:
    problems: those that fit, in order.
    ids: their prompts as token ids.
    num_too_long: problems that were left out.
    longest: tokens of the longest prompt of all.
  """

  problems: list[Problem]
  ids: list[list[int]]
  num_too_long: int
  longest: int


def encode_prompts(
  problems: Sequence[Problem], task: Task, tokenizer: Tokenizer, prompt_tokens: int
) -> Prompts:
  """Tokenises prompts and leaves out those that do not fit; nothing is cut.

  Args:
    problems: a split.
    task: makes the prompt's text.
    tokenizer: makes the ids.
    prompt_tokens: slots.

  Returns:
    The prompts that fit, and how many do not.

  Raises:
    ValueError: if there are no problems, or none fits.
  """
  if not problems:
    raise ValueError(f'task {task.name}: the data set has no problems')
  ids = [tokenizer.prompt_ids(task.prompt(problem)) for problem in problems]
  fits = [i for i, row in enumerate(ids) if len(row) <= prompt_tokens]
  longest = max(map(len, ids))
  if not fits:
    raise ValueError(
      f'config.rollout.prompt_tokens={prompt_tokens} is too small for every problem of task '
      f'{task.name}; the longest prompt has {longest} tokens, the shortest {min(map(len, ids))}'
    )
  return Prompts(
    problems=[problems[i] for i in fits],
    ids=[ids[i] for i in fits],
    num_too_long=len(ids) - len(fits),
    longest=longest,
  )


def fill_slots(rows: Sequence[Sequence[int]], num_slots: int) -> tuple[np.ndarray, np.ndarray]:
  """Puts rows of ids into slots, from the left.

  Args:
    rows: B rows of token ids.
    num_slots: T.

  Returns:
    i32[B, T] ids (0 in holes) and bool[B, T].

  Raises:
    ValueError: if a row is empty or does not fit.

  Example:
    >>> tokens, is_token = fill_slots([[5, 6], [7]], 2)
    >>> tokens.tolist(), is_token.tolist()
    ([[5, 6], [7, 0]], [[True, True], [True, False]])
  """
  tokens = np.zeros((len(rows), num_slots), np.int32)
  is_token = np.zeros((len(rows), num_slots), bool)
  for b, row in enumerate(rows):
    if not 0 < len(row) <= num_slots:
      raise ValueError(f'row {b} has {len(row)} tokens, not 1 to {num_slots}')
    tokens[b, : len(row)] = row
    is_token[b, : len(row)] = True
  return tokens, is_token


def turn_texts(
  tokens_BT: np.ndarray, turn_BT: np.ndarray, turn: int, tokenizer: Tokenizer
) -> list[str]:
  """Reads the answers of one turn.

  Args:
    tokens_BT: i32[B, T] of an episode.
    turn_BT: i32[B, T] of an episode.
    turn: counted from 0.
    tokenizer: makes text of ids.

  Returns:
    B texts.
  """
  return [
    tokenizer.decode(row[is_turn].tolist())
    for row, is_turn in zip(tokens_BT, turn_BT == turn + 1, strict=True)
  ]


def longest_row(episode: Episode) -> int:
  """Real tokens of the longest row of an episode whose arrays are on the host."""
  return int(np.asarray(episode.is_token).sum(axis=1).max())


def describe_episode(episode: Episode, row: int, tokenizer: Tokenizer) -> str:
  """Prints one row token by token, with its masks.

  Args:
    episode: any episode.
    row: which row.
    tokenizer: makes text of ids.

  Returns:
    A table: slot, position, id, text, turn, whether it was sampled, log-probability in nats.
  """
  e = [np.asarray(x)[row] for x in (episode.tokens, episode.positions, episode.is_token)]
  turn, is_sampled, logp = (
    np.asarray(x)[row] for x in (episode.turn, episode.is_sampled, episode.sampled_logp)
  )
  lines = ['slot  pos      id  turn  sampled    logp  text']
  for slot in np.flatnonzero(e[2]):
    token = int(e[0][slot])
    text = tokenizer.decode([token]) or f'<{token}>'
    lines.append(
      f'{slot:4d} {e[1][slot]:4d} {token:7d} {turn[slot] or "-":>5} '
      f'{"yes" if is_sampled[slot] else "no":>8} {logp[slot]:7.3f}  {text!r}'
    )
  return '\n'.join(lines)
