"""Times the math checker on MATH's reference answers, each pair distinct work: the cache is off.

    python benchmarks/grade_math.py --data DIR     DIR holds math/train.jsonl and math/test.jsonl

cold: fresh workers, so their start and the parser's first meeting with each construction count.
warm: the same again. right: every answer against itself, at the end of its solution and in another
spelling, so that no comparison of texts settles it; wrong: against the answer of another problem.
The task's grader, which refuses formulas of the question; `no rule` is the one without, in turns.
latency: of one item, sent alone to a warm worker. Processor seconds are those of this process and
its workers (Linux): on a machine that others use, they say more than the clock.
"""

import argparse
import json
import os
import pathlib
import random
import time
from collections import Counter

from score_jax.tasks.workers.pool import WorkerPool

GRADER = 'score_jax.tasks.math_checker.restated:grade_final_answer'
NO_RULE = 'score_jax.tasks.math_checker.equality:grade_final_answer'
ROUNDS = 3  # of both graders in turns


def sentence(answer: str) -> str:
  """The paper's closing words."""
  return f'Final Answer: The final answer is ${answer}$. I hope it is correct.'


def pairs(rows: list[dict], seed: int) -> tuple[list, list]:
  """(right, wrong): (reference, text, question) items, one of each per row that has an answer."""
  rows = [row for row in rows if row['answer'].strip()]
  right = [
    (row['answer'], f'{row["solution"]} {sentence(respelt(row["answer"]))}', row['problem'])
    for row in rows
  ]
  others = rows[:]
  random.Random(seed).shuffle(others)
  wrong = [
    (row['answer'], f'{row["solution"]} {sentence(other["answer"])}', row['problem'])
    for row, other in zip(rows, others, strict=True)
    if row['answer'] != other['answer']
  ]
  return right, wrong


def respelt(answer: str) -> str:
  """The same answer behind a command that changes its looks alone; words stay as they are."""
  return answer if r'\text' in answer or r'\mbox' in answer else f'\\displaystyle {answer}'


def processor_seconds(pool: WorkerPool) -> float:
  """What this process and the workers have used so far."""
  ticks = 0
  for pid in [os.getpid(), *(worker.process.pid for worker in pool._workers)]:
    fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    ticks += int(fields[11]) + int(fields[12])  # user and system time
  return ticks / os.sysconf('SC_CLK_TCK')


def timed(pool: WorkerPool, items: list, name: str) -> None:
  """Grades items and prints how long it took and what came out."""
  used, start = processor_seconds(pool), time.perf_counter()
  verdicts = pool.grade(items)
  seconds, used = time.perf_counter() - start, processor_seconds(pool) - used
  print(
    f'{name:12} {len(items):6} in {seconds:5.1f} s: {len(items) / seconds:5.0f} per s, '
    f'{len(items) / used:5.0f} per processor second;',
    ', '.join(f'{n} {kind}' for kind, n in Counter(v.kind for v in verdicts).items()),
  )


def main() -> None:
  """Reads the command line, runs, prints."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--data', required=True, type=pathlib.Path)
  parser.add_argument('--workers', type=int, default=2)
  parser.add_argument('--seed', type=int, default=0)
  flags = parser.parse_args()
  rows = []
  for name in ('train', 'test'):
    with open(flags.data / 'math' / f'{name}.jsonl', encoding='utf-8') as file:
      rows += map(json.loads, file)
  right, wrong = pairs(rows, flags.seed)
  pool = WorkerPool(GRADER, num_workers=flags.workers, timeout_s=5.0, cache_size=0)
  timed(pool, wrong, 'wrong, cold')
  timed(pool, wrong, 'wrong, warm')
  timed(pool, right, 'right, warm')
  mixed = right + wrong
  random.Random(flags.seed).shuffle(mixed)
  bare = WorkerPool(NO_RULE, num_workers=flags.workers, timeout_s=5.0, cache_size=0)
  bare.grade([item[:2] for item in mixed])
  for _ in range(ROUNDS):
    timed(pool, mixed, 'both, warm')
    timed(bare, [item[:2] for item in mixed], 'no rule')
  bare.close()
  sample = mixed[:2000]
  latencies = []
  for item in sample:
    start = time.perf_counter()
    pool.grade([item])
    latencies.append(time.perf_counter() - start)
  latencies.sort()
  quantiles = {q: latencies[int(q * (len(sample) - 1))] * 1e3 for q in (0.5, 0.9, 0.99, 1.0)}
  print('latency, ms ', '  '.join(f'{q:.0%} {ms:.2f}' for q, ms in quantiles.items()))
  pool.close()


if __name__ == '__main__':
  main()
