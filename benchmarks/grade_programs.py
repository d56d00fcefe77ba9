"""Times the code checker on the reference programs of MBPP and HumanEval, each in its own sandbox.

    python benchmarks/grade_programs.py --data DIR

DIR holds mbpp/mbpp.jsonl and humaneval/HumanEval.jsonl.gz. cold: fresh judges and sandboxes, whose
start counts. warm: the same again. latency: of one program, sent alone to a warm judge. Programs
that do not pass are listed; there is no cache.
"""

import argparse
import gzip
import json
import pathlib
import statistics
import time
from collections import Counter

from score_jax.tasks.code import checker, isolation


def references(data: pathlib.Path) -> list[tuple[str, str, str]]:
  """(name, tests, program) of every reference."""
  found = []
  with open(data / 'mbpp' / 'mbpp.jsonl', encoding='utf-8') as file:
    for row in map(json.loads, file):
      tests = '\n'.join([row['test_setup_code'], *row['test_list']])
      found.append((f'MBPP/{row["task_id"]}', tests, row['code']))
  with gzip.open(data / 'humaneval' / 'HumanEval.jsonl.gz', 'rt', encoding='utf-8') as file:
    for row in map(json.loads, file):
      name, prompt = row['entry_point'], row['prompt']
      tests = f'{checker.helpers(prompt, name)}\n{row["test"]}\ncheck({name})'
      found.append((row['task_id'], tests, prompt + row['canonical_solution']))
  return found


def timed(grader: checker.CodeChecker, rows: list[tuple[str, str, str]], name: str) -> None:
  """Grades the programs and prints how long it took and what came out."""
  start = time.perf_counter()
  verdicts = grader.grade([row[1:] for row in rows])
  seconds = time.perf_counter() - start
  counts = dict(Counter(verdict.kind for verdict in verdicts))
  print(f'{name:6} {len(rows):5} in {seconds:6.1f} s {len(rows) / seconds:6.0f} per s  {counts}')
  for row, verdict in zip(rows, verdicts, strict=True):
    if not verdict.reward:
      print(f'  {row[0]}: {verdict.reason}')


def main() -> None:
  """Reads the command line, runs, prints."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--data', required=True, type=pathlib.Path)
  parser.add_argument('--workers', type=int, default=2)
  parser.add_argument('--timeout_s', type=float, default=20.0)
  flags = parser.parse_args()
  print(isolation.available())
  rows = references(flags.data)
  grader = checker.CodeChecker(num_workers=flags.workers, timeout_s=flags.timeout_s)
  timed(grader, rows, 'cold')
  timed(grader, rows, 'warm')
  latencies = []
  for row in rows[:200]:
    start = time.perf_counter()
    grader.grade([row[1:]])
    latencies.append(1000 * (time.perf_counter() - start))
  middle, last = statistics.median(latencies), sorted(latencies)[-10]
  print(f'latency: median {middle:.1f} ms, 95% {last:.1f} ms')
  grader.close()


if __name__ == '__main__':
  main()
