r"""Counts what the rule against restated formulas changes on MATH, with and without it.

    python benchmarks/restated_math.py --data DIR     DIR holds math/train.jsonl and math/test.jsonl

references: each reference answer in the paper's sentence. solutions: each reference solution as it
is. formulas: each formula of a question, and each side of one that has sides, as the answer to it.
disguised: the formulas that the rule refuses, in other looks. respelt: each reference answer as
sympy would write it, or behind a name, which must stay right. Whatever changes among references,
solutions and respelt references is printed, to be looked at.
"""

import argparse
import json
import pathlib
import re
from collections.abc import Iterator

import sympy

from score_jax.tasks import base, math
from score_jax.tasks.math_checker import latex

# Apart from the rule's own reading of a question, which it is to be held against.
FORMULA = re.compile(
  r'\$\$(.+?)\$\$|\\\[(.+?)\\\]|(?<!\\)\$(.+?)(?<!\\)\$|\\begin\{align\*?\}(.+?)\\end\{align\*?\}',
  re.DOTALL,
)
SIDES = re.compile(r'=|\\\\|&|\\(?:[lg]eq?|ne|equiv|approx)(?![a-z])|[<>]|,')
DISGUISES = (
  r'x = {}',
  r'\left( {} \right)',
  r'\displaystyle {}',
  r'{} + 0',
  r'1 \cdot {}',
  r'\frac{{ {} }}{{1}}',
)


def sentence(answer: str) -> str:
  """The paper's closing words."""
  return f'Final Answer: The final answer is ${answer}$. I hope it is correct.'


def formulas(question: str) -> Iterator[str]:
  """The formulas of a question and their sides, each once."""
  drawn = re.sub(r'\[asy\].*?\[/asy\]', '', question, flags=re.DOTALL)
  found = [match.group(match.lastindex) for match in FORMULA.finditer(drawn)]
  sides = [side for formula in found for side in SIDES.split(formula) if side.strip()]
  return dict.fromkeys(text.strip().rstrip('.,;') for text in found + sides)


def respelt(answer: str) -> Iterator[str]:
  """A reference answer behind a name, and in sympy's own words."""
  yield f'x = {answer}'
  parsed = latex.parse(answer)
  if parsed is not None:
    yield sympy.latex(parsed)
    yield sympy.latex(parsed, order='rev-lex', mul_symbol='dot')


class Graders:
  """The task with the rule and without it."""

  def __init__(self, num_workers: int):
    options = {'num_workers': num_workers, 'timeout_s': 5.0}
    self.with_rule = math.math_task('math', [], [], **options)
    self.without = math.math_task('math', [], [], **options, refuse_restated=False)

  def compare(self, name: str, items: list[tuple[base.Problem, str, str]], shown: int) -> list:
    """Prints the counts of one kind of answers (problem, text, what to show); returns refused."""
    right = self.right(self.without, items)
    still = self.right(self.with_rule, right)  # the rule looks at no others
    kept = set(still)
    refused = [item for item in right if item not in kept]
    problems = len({item[0].id for item in refused})
    print(
      f'{name:12} {len(items):6}: right without {len(right):6}, with {len(still):6}; refused on '
      f'{problems} problems',
      flush=True,
    )
    for problem, _, answer in refused[:shown]:
      print(f'  problem {problem.id}: reference {problem.answer}; refused {answer}')
    return refused

  def right(self, task: base.Task, items: list) -> list:
    """Those of the items that a task finds right."""
    verdicts = task.grade([problem for problem, *_ in items], [text for _, text, _ in items])
    return [item for item, verdict in zip(items, verdicts, strict=True) if verdict.reward]

  def close(self) -> None:
    """Ends the workers."""
    self.with_rule.close()
    self.without.close()


def main() -> None:
  """Reads the command line, runs, prints."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--data', required=True, type=pathlib.Path)
  parser.add_argument('--workers', type=int, default=2)
  flags = parser.parse_args()
  graders = Graders(flags.workers)
  for split in ('train', 'test'):
    with open(flags.data / 'math' / f'{split}.jsonl', encoding='utf-8') as file:
      rows = [json.loads(line) for line in file]
    problems = [base.Problem(i, row['problem'], row['answer']) for i, row in enumerate(rows)]
    print(f'{split}: {len(problems)} problems')
    everything = len(problems) * 10
    graders.compare('references', [(p, sentence(p.answer), p.answer) for p in problems], everything)
    solutions = [
      (p, row['solution'], 'its solution') for p, row in zip(problems, rows, strict=True)
    ]
    graders.compare('solutions', solutions, everything)
    other = [(p, sentence(text), text) for p in problems for text in respelt(p.answer)]
    graders.compare('respelt', other, everything)
    copies = [(p, sentence(text), text) for p in problems for text in formulas(p.question)]
    refused = graders.compare('formulas', copies, 0)
    disguised = [
      (p, sentence(form.format(text)), form.format(text))
      for p, _, text in refused
      for form in DISGUISES
    ]
    graders.compare('disguised', disguised, 0)
  graders.close()


if __name__ == '__main__':
  main()
