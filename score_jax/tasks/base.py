"""What a task is: problems, prompts, and a grader of text.

A task lives on the host. It knows neither the model nor jax: the rollout turns `prompt(problem)`
into tokens, and hands back plain text to `grade`.
"""

import dataclasses
from collections.abc import Callable, Sequence


@dataclasses.dataclass(frozen=True)
class Problem:
  """One question with its reference answer.

  Attributes:
    id: the index within its split, the same in every run: random keys are made from it, and
      `split[i].id == i`.
    question: text.
    answer: the reference answer, never shown to the model.
    level: difficulty, as the source names it; '' where it has none.
  """

  id: int
  question: str
  answer: str
  level: str = ''


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What the checker said of one answer.

  Attributes:
    reward: 0.0 or 1.0.
    reason: 'correct', 'wrong', 'no_answer', 'timeout', 'too_long', 'no_reference', or 'error: '
      followed by what happened. `kind` is its first word, for counting.
  """

  reward: float
  reason: str

  @property
  def kind(self) -> str:
    """The first word of `reason`: Verdict(0.0, 'error: MemoryError').kind is 'error'."""
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
  """

  name: str
  train: Sequence[Problem]
  test: Sequence[Problem]
  prompt: Callable[[Problem], str]
  instruction: str
  grade: Callable[[Sequence[Problem], Sequence[str]], list[Verdict]]
  final: Callable[[str], str | None]
  close: Callable[[], None]


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

  Nothing is removed: real data may overlap, and which side gives way is the user's to say. The
  caller reports the count.

  Args:
    task: any task.

  Returns:
    (test problem, first training problem with the same normalised question), in test order;
    empty where the splits are disjoint.
  """
  first: dict[str, Problem] = {}
  for problem in task.train:
    first.setdefault(normalise_question(problem.question), problem)
  questions = [(problem, normalise_question(problem.question)) for problem in task.test]
  return [(problem, first[question]) for problem, question in questions if question in first]


def check_same_length(problems: Sequence[Problem], texts: Sequence[str]) -> None:
  """Raises ValueError where a grader is handed more texts than problems, or fewer."""
  if len(problems) != len(texts):
    raise ValueError(f'grade: {len(problems)} problems but {len(texts)} texts; one text each.')
