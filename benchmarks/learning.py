"""What runs have learnt, side by side: python benchmarks/learning.py RUN...

First and last are means over the first and the last third of a run's updates. Seconds of an update
are the median of all but the first, which compiles.
"""

import argparse
import pathlib
import statistics

from common import hardware, print_row

from score_jax.runs.metrics import read_metrics


def cells(records: list[dict]) -> list:
  """Of a run's records: updates, rewards of two turns, first and last, seconds of an update."""
  third = -(-len(records) // 3)
  found = [len(records)]
  for turn in (1, 2):
    rewards = [record[f'train/reward_t{turn}'] for record in records]
    found += [statistics.fmean(rewards[:third]), statistics.fmean(rewards[-third:])]
  return [*found, statistics.median(record['time/step_s'] for record in records[1:] or records)]


def main() -> None:
  """Reads the command line, prints a line for each run; one without metrics is named as such."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('runs', nargs='+', type=pathlib.Path)
  runs = parser.parse_args().runs
  print(f'### Few updates, side by side\n\n{hardware()}\n')
  header = [
    'run',
    'updates',
    'reward t1, first',
    'last',
    'reward t2, first',
    'last',
    's per update',
  ]
  print_row(header, is_header=True)
  for run in runs:
    records = read_metrics(run)
    print_row([run.name, *(cells(records) if records else ['no update ended'] + [''] * 5)])


if __name__ == '__main__':
  main()
