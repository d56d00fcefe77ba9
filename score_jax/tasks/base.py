"""What a task is: problems, prompts, and a grader of text.

A task lives on the host. It knows neither the model nor jax: the rollout turns `prompt(problem)`
into tokens, and hands back plain text to `grade`.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence


@dataclasses.dataclass(frozen=True)
class Problem:
  """One question with its reference answer.

  Attributes:
    id: the position within its split as published, the same in every run: random keys are made
      from it. It stays what it is where other problems of the split are left out.
    question: text, as the prompt shows it.
    answer: what the checker compares with, such as a number or a program's tests. The reference
      solution is never shown to the model.
    level: difficulty, as the source names it; '' where it has none.
    attempt: a wrong first answer, forced as turn 1; '' where the model writes its own.
  """

  id: int
  question: str
  answer: str
  level: str = ''
  attempt: str = ''


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What the checker said of one answer.

  Attributes:
    reward: 0.0 or 1.0.
    reason: 'correct', 'wrong', 'no_answer', 'restated', 'timeout', 'too_long', 'no_reference', or
      'error: ' followed by what happened; a checker may have others. `kind` is what stands before
      the colon, for counting: a run's metrics hold the share of each, `train/graded_KIND`.
  """

  reward: float
  reason: str

  @property
  def kind(self) -> str:
    """What `reason` begins with: Verdict(0.0, 'error: MemoryError').kind is 'error'."""
    return self.reason.partition(':')[0]


@dataclasses.dataclass(frozen=True)
class Task:
  """Problems to train on, problems to be measured on, and how an answer is judged.

  Attributes:
    name: for run directories and reports.
    train: problems of the training split.
    test: problems held out for evaluation.
    prompt: a problem -> the text of the first user turn.
    instruction: the text that asks for the second attempt, the same for every problem.
    grade: (problems, texts) -> one verdict per text, in order. It never raises for what a text
      holds; a checker that hangs or dies costs that one text its reward.
    final: a text -> its final answer, None where it has none; to tell whether an answer changed.
    close: ends what `grade` started (worker processes). Grading again starts them again.
    statement: a problem -> the part of its text that makes it the same problem as another.
  """

  name: str
  train: Sequence[Problem]
  test: Sequence[Problem]
  prompt: Callable[[Problem], str]
  instruction: str
  grade: Callable[[Sequence[Problem], Sequence[str]], list[Verdict]]
  final: Callable[[str], str | None]
  close: Callable[[], None] = lambda: None
  statement: Callable[[Problem], str] = lambda problem: problem.question


def normalise_question(text: str) -> str:
  """A question's text without its spacing and case, to tell whether two are the same problem.

  Punctuation stays: `z^4 + z^2 + 1` and `z^4 - z^2 + 1` are two problems.

  Example:
    >>> normalise_question('  What is  $2+2$?\\n')
    'what is $2+2$?'
  """
  return ' '.join(text.split()).casefold()


def check_disjoint(task: Task) -> list[tuple[Problem, Problem]]:
  """Finds evaluation problems that are in the training split too.

  Args:
    task: any task.

  Returns:
    (test problem, first training problem with the same normalised statement), in test order;
    empty where the splits are disjoint.
  """
  first: dict[str, Problem] = {}
  for problem in task.train:
    first.setdefault(normalise_question(task.statement(problem)), problem)
  statements = [(problem, normalise_question(task.statement(problem))) for problem in task.test]
  return [(problem, first[text]) for problem, text in statements if text in first]


def without_overlap(task: Task) -> Task:
  """Leaves out the training problems that are evaluation problems too, and says so in the log.

  The evaluation split stays whole, so that its numbers compare with those of others.

  Args:
    task: any task.

  Returns:
    The task with a smaller training split; the problems keep their ids.
  """
  overlap = check_disjoint(task)
  if not overlap:
    return task
  statements = {normalise_question(task.statement(problem)) for problem, _ in overlap}
  train = [p for p in task.train if normalise_question(task.statement(p)) not in statements]
  logging.getLogger(__name__).warning(
    'task %s: %d of %d training problems are left out, for they are evaluation problems too: '
    'ids %s; config.data.drop_overlap=False keeps them',
    task.name,
    len(task.train) - len(train),
    len(task.train),
    sorted({p.id for p in task.train} - {p.id for p in train})[:10],
  )
  return dataclasses.replace(task, train=train)


def warn_of_repeats(task: Task) -> None:
  """Says in the log which problems stand several times in a split, and which of them disagree.

  They stay: ids are positions in the published file, and others count what is in it.

  Args:
    task: any task; problems with the same normalised statement are the same.
  """
  for split, problems in (('training', task.train), ('evaluation', task.test)):
    first: dict[str, Problem] = {}
    pairs = [(p, first.setdefault(normalise_question(task.statement(p)), p)) for p in problems]
    again = [problem.id for problem, earlier in pairs if problem is not earlier]
    other = [p.id for p, earlier in pairs if p.answer.split() != earlier.answer.split()]
    if again:
      logging.getLogger(__name__).warning(
        'task %s: %d of %d %s problems have the text of an earlier one and count again: %s; %d of '
        'them have another answer%s',
        task.name,
        len(again),
        len(problems),
        split,
        _some(again),
        len(other),
        f': {_some(other)}' if other else '',
      )


def _some(ids: list[int]) -> str:
  """The first ids, and how many more there are."""
  return f'ids {ids[:10]}' + (f' and {len(ids) - 10} more' if len(ids) > 10 else '')


def check_same_length(problems: Sequence[Problem], texts: Sequence[str]) -> None:
  """Raises ValueError where a grader is handed more texts than problems, or fewer."""
  if len(problems) != len(texts):
    raise ValueError(f'grade: {len(problems)} problems but {len(texts)} texts; one text each.')
