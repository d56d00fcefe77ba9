"""Two-turn evaluation: sample, grade, and say how sure the numbers are."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
from scipy import stats

from score_jax.core import sharding
from score_jax.core.tokenizers import Tokenizer
from score_jax.core.types import Episode
from score_jax.model.decoder import Decoder
from score_jax.procedures.keys import episode_keys
from score_jax.procedures.layout import RolloutSpec
from score_jax.procedures.rollout import rollout
from score_jax.procedures.text import Prompts, fill_slots, turn_texts
from score_jax.tasks.base import Problem, Task

# Names an evaluation's random keys, apart from those of training steps.
EVAL_STEP = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What an evaluation found.

  Attributes:
    records: one for each problem: id, level, question, answer; and with one entry a turn answers,
      finals (final answers, None where there is none), rewards, reasons, tokens, truncated.
    metrics: see `summarise`.
    num_left_out: problems whose prompt did not fit its slot.
  """

  records: list[dict]
  metrics: dict[str, dict[str, float]]
  num_left_out: int


def share(count: int, total: int) -> dict[str, float]:
  """A fraction with its 95% Wilson interval.

  Args:
    count: successes.
    total: trials, above 0.

  Returns:
    {'mean', 'low', 'high'} as fractions.

  Example:
    >>> {k: round(v, 3) for k, v in share(5, 10).items()}
    {'mean': 0.5, 'low': 0.237, 'high': 0.763}
  """
  interval = stats.binomtest(int(count), int(total)).proportion_ci(0.95, method='wilson')
  return {'mean': count / total, 'low': float(interval.low), 'high': float(interval.high)}


def paired_difference(gained: int, lost: int, total: int) -> dict[str, float]:
  """The difference of two accuracies on the same problems, with its 95% interval.

  The Agresti-Min interval: the Wald interval of paired proportions after half a problem has been
  added to each of the four outcomes. It does not collapse to a point when nothing changed.

  Args:
    gained: problems wrong before and right after.
    lost: problems right before and wrong after.
    total: all problems.

  Returns:
    {'mean', 'low', 'high'} as fractions.

  Example:
    >>> {k: round(v, 3) for k, v in paired_difference(10, 0, 100).items()}
    {'mean': 0.1, 'low': 0.037, 'high': 0.159}

  Source: Agresti and Min, Statistics in Medicine 24 (2005), 729-740.
  """
  n, b, c = total + 2, gained + 0.5, lost + 0.5
  centre = (b - c) / n
  half = 1.959964 * np.sqrt((b + c) - (b - c) ** 2 / n) / n
  return {
    'mean': (gained - lost) / total,
    'low': max(-1.0, float(centre - half)),
    'high': min(1.0, float(centre + half)),
  }


def mean_interval(values: Sequence[float]) -> dict[str, float]:
  """A mean with its 95% normal interval.

  Args:
    values: at least one number.

  Returns:
    {'mean', 'low', 'high'} in the values' unit.
  """
  x = np.asarray(values, float)
  half = 1.959964 * x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else 0.0
  return {
    'mean': float(x.mean()),
    'low': float(x.mean() - half),
    'high': float(x.mean() + half),
  }


def summarise(records: Sequence[Mapping]) -> dict[str, dict[str, float]]:
  """Turns per-problem records into the paper's metrics.

  Args:
    records: of `Evaluation`.

  Returns:
    `acc_tK` for each turn; for the last two turns `delta` (later minus earlier accuracy), `i2c`
    (wrong then right), `c2i` (right then wrong) and `changed` (another final answer), as fractions;
    `length_tK` in tokens, `truncated_tK`; each with its 95% interval.

  Raises:
    ValueError: if there are no records.
  """
  if not records:
    raise ValueError('an evaluation of no problems has no metrics')
  n = len(records)
  reward_BK = np.asarray([r['rewards'] for r in records])
  metrics = {}
  for k in range(reward_BK.shape[1]):
    metrics[f'acc_t{k + 1}'] = share(int(reward_BK[:, k].sum()), n)
    metrics[f'length_t{k + 1}'] = mean_interval([r['tokens'][k] for r in records])
    metrics[f'truncated_t{k + 1}'] = share(sum(r['truncated'][k] for r in records), n)
  if reward_BK.shape[1] > 1:
    before, now = reward_BK[:, -2] > 0, reward_BK[:, -1] > 0
    gained, lost = int((~before & now).sum()), int((before & ~now).sum())
    metrics |= {
      'delta': paired_difference(gained, lost, n),
      'i2c': share(gained, n),
      'c2i': share(lost, n),
      'changed': share(sum(r['finals'][-1] != r['finals'][-2] for r in records), n),
    }
  return metrics


def grade_episode(
  episode: Episode, problems, task: Task, tokenizer: Tokenizer
) -> tuple[list[list[str]], list[list]]:
  """Reads and grades every turn of every row.

  Args:
    episode: B rows, on the host.
    problems: the B rows' problems.
    task: the grader.
    tokenizer: makes text of ids.

  Returns:
    Texts and verdicts, each as K lists of B.
  """
  num_turns = episode.is_truncated.shape[1]
  texts = [turn_texts(episode.tokens, episode.turn, k, tokenizer) for k in range(num_turns)]
  return texts, [task.grade(problems, turn) for turn in texts]


@dataclasses.dataclass(frozen=True)
class Sampler:
  """A policy that is ready to play.

  Attributes:
    decoder: the model.
    spec: budgets and instructions.
    params: the policy's parameters.
    tokenizer: makes text of ids.
    batch: rows sampled at once, rounded up to what the devices divide.
    temperature: 0 is greedy.
    seed: of the samples, at a temperature above 0.
    mesh: the devices.
  """

  decoder: Decoder
  spec: RolloutSpec
  params: dict
  tokenizer: Tokenizer
  batch: int
  temperature: float
  seed: int
  mesh: jax.sharding.Mesh

  def play(self, rows: Sequence['Row'], key_step: int) -> Iterator[tuple[slice, Episode]]:
    """Samples one episode for each row.

    With several processes, each plays its share of a batch, and all get all of it.

    Args:
      rows: what to play.
      key_step: names the random keys, as a training step does.

    Yields:
      (which of the rows, their episodes on the host). The last batch is filled up with repeats of
      the last row, which are thrown away.
    """
    parts = sharding.batch_rows(self.mesh)
    batch = -(-min(self.batch, len(rows)) // parts) * parts
    share = batch // jax.process_count()
    for start in range(0, len(rows), batch):
      first = start + jax.process_index() * share
      mine = [rows[min(first + i, len(rows) - 1)] for i in range(share)]
      part = slice(start, min(start + batch, len(rows)))
      episode = sharding.all_rows(self._play(mine, key_step))
      yield part, jax.tree.map(lambda x, n=part.stop - start: x[:n], episode)

  def _play(self, rows: Sequence['Row'], key_step: int) -> Episode:
    spec = self.spec
    host = {
      'prompt': fill_slots([row.prompt_ids for row in rows], spec.prompt_tokens),
      'problems': np.asarray([row.problem_id for row in rows], np.int32),
      'samples': np.asarray([row.sample for row in rows], np.int32),
    }
    if rows[0].first_answer_ids is not None:
      host['given'] = fill_slots([row.first_answer_ids for row in rows], spec.turn_tokens[0])
    with jax.sharding.set_mesh(self.mesh):
      x = sharding.put_batch(self.mesh, host)
      keys_B = episode_keys(self.seed, key_step, x['problems'], x['samples'])
      given = {0: x['given']} if 'given' in x else None
      return rollout(self.decoder, spec, self.params, *x['prompt'], keys_B, self.temperature, given)


@dataclasses.dataclass(frozen=True)
class Row:
  """One episode to play.

  Attributes:
    prompt_ids: token ids of the prompt.
    problem_id: names the random keys.
    sample: which sample of the problem it is.
    first_answer_ids: turn 1, end included, where it is given and not sampled: in all rows or none.
  """

  prompt_ids: Sequence[int]
  problem_id: int
  sample: int = 0
  first_answer_ids: Sequence[int] | None = None


def make_records(
  problems: Sequence[Problem], episode: Episode, task: Task, tokenizer: Tokenizer
) -> list[dict]:
  """Grades episodes and writes down what happened.

  Args:
    problems: the B rows' problems.
    episode: B rows, on the host.
    task: the grader.
    tokenizer: makes text of ids.

  Returns:
    B records, see `Evaluation`.
  """
  texts, verdicts = grade_episode(episode, problems, task, tokenizer)
  turns = range(len(texts))
  return [
    {
      'id': problem.id,
      'level': problem.level,
      'question': problem.question,
      'answer': problem.answer,
      'answers': [texts[k][b] for k in turns],
      'finals': [task.final(texts[k][b]) for k in turns],
      'rewards': [verdicts[k][b].reward for k in turns],
      'reasons': [verdicts[k][b].reason for k in turns],
      'tokens': [int((episode.turn[b] == k + 1).sum()) for k in turns],
      'truncated': [bool(episode.is_truncated[b, k]) for k in turns],
    }
    for b, problem in enumerate(problems)
  ]


def evaluate(sampler: Sampler, prompts: Prompts, task: Task) -> Evaluation:
  """Lets the model answer each problem once, in K turns, with no checker in between.

  Args:
    sampler: the policy.
    prompts: the problems; those whose prompt does not fit are already left out and counted.
    task: the grader, used after the last turn only.

  Returns:
    Records in the problems' order, and metrics.
  """
  rows = [Row(ids, problem.id) for ids, problem in zip(prompts.ids, prompts.problems, strict=True)]
  records = []
  for part, episode in sampler.play(rows, EVAL_STEP):
    records += make_records(prompts.problems[part], episode, task, sampler.tokenizer)
  return Evaluation(records, summarise(records), prompts.num_too_long)
