"""Runs the rows of a replication as processes of their own, several at once.

A row that fails leaves its message in WORKDIR/ROW/error.txt and costs those that start from it;
all others go on. A row's process lives as long as its standard input is open, so that none is left
behind by a program that was killed.
"""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from etils import epath
from tqdm import tqdm

from score_jax.replication.rows import ReplicationRow, finished, seed_dir
from score_jax.runs.files import write_atomic
from score_jax.runs.metrics import read_metrics

_POLL_S = 2.0


def end_with_parent() -> None:
  """Ends this process as SIGTERM does, once whoever started it is gone: its run is saved first."""

  def wait():
    # Reading ends when the other end of the pipe is closed. Not through sys.stdin, whose lock a
    # waiting thread would hold when the interpreter ends.
    while os.read(sys.stdin.fileno(), 1):
      pass
    os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=wait, daemon=True).start()


@dataclasses.dataclass
class _Job:
  name: str
  process: subprocess.Popen
  log: epath.Path
  log_start: int  # bytes that earlier attempts wrote


def run_jobs(
  names: Sequence[str],
  rows: Mapping[str, ReplicationRow],
  seeds_of: Callable[[ReplicationRow], list[int]],
  command: Callable[[str], list[str]],
  workdir: epath.Path,
  num_jobs: int,
) -> list[str]:
  """Runs rows until each is finished or has failed.

  Args:
    names: rows to run, each after the one that it starts from.
    rows: all rows.
    seeds_of: the seeds of a row.
    command: a row's command line.
    workdir: of the replication.
    num_jobs: processes at once.

  Returns:
    Rows that failed, and rows that could not start for it.
  """
  jobs: list[_Job] = []
  failed: list[str] = []
  waiting = [name for name in names if not rows[name].not_applicable]
  total = sum(_work(rows[name], seeds_of) for name in waiting)
  before, every = _done(waiting, rows, seeds_of, workdir), list(waiting)

  def is_finished(row, of):
    seeds = seeds_of(of)
    return len(finished(workdir, row.name, seeds)) == len(seeds)

  try:
    with tqdm(total=total, initial=before, unit='updates', bar_format=_BAR) as bar:
      while waiting or jobs:
        for name in list(waiting):
          row = rows[name]
          lost = {
            n
            for n in row.needs
            if rows[n].not_applicable or (n in failed and not is_finished(rows[n], row))
          }
          if lost:
            waiting.remove(name)
            failed.append(name)
            write_atomic(workdir / name / 'error.txt', f'not started: no {sorted(lost)}\n')
          elif is_finished(row, row):
            waiting.remove(name)
          elif len(jobs) < num_jobs and all(is_finished(rows[other], row) for other in row.needs):
            waiting.remove(name)
            jobs.append(_start(name, command(name), workdir))
        time.sleep(_POLL_S)
        for job in [job for job in jobs if job.process.poll() is not None]:
          jobs.remove(job)
          job.process.stdin.close()
          if job.process.returncode or not is_finished(rows[job.name], rows[job.name]):
            failed.append(job.name)
            _keep_error(job, workdir)
        bar.set_postfix_str(', '.join(job.name for job in jobs), refresh=False)
        bar.update(_done(every, rows, seeds_of, workdir) - bar.n)
  finally:
    # Also when this program is interrupted: each row saves what it has.
    for job in jobs:
      job.process.stdin.close()
    for job in jobs:
      job.process.wait()
  return failed


_BAR = '{percentage:3.0f}% |{bar}| {elapsed} gone, {remaining} left; {postfix}'


def _start(name: str, command: list[str], workdir: epath.Path) -> _Job:
  log = workdir / name / 'log.txt'
  log.parent.mkdir(parents=True, exist_ok=True)
  log_start = log.stat().length if log.exists() else 0
  (workdir / name / 'error.txt').unlink(missing_ok=True)
  with open(os.fspath(log), 'ab') as out:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out)
  return _Job(name, process, log, log_start)


def _keep_error(job: _Job, workdir: epath.Path) -> None:
  text = job.log.read_bytes()[job.log_start :].decode('utf-8', errors='replace')
  last = text.strip().splitlines()[-20:]
  text = f'exit status {job.process.returncode}\n' + '\n'.join(last) + '\n'
  write_atomic(workdir / job.name / 'error.txt', text)
  tqdm.write(f'{job.name} failed: {last[-1] if last else "without a word"} (see {job.log})')


# What evaluating a row takes, in updates.
_EVALUATION_WORK = 20


def _work(row: ReplicationRow, seeds_of) -> int:
  return len(seeds_of(row)) * (row.num_steps + _EVALUATION_WORK)


def _done(names, rows, seeds_of, workdir: epath.Path) -> int:
  """Work that is done, in updates."""
  total = 0
  for name in names:
    row, seeds = rows[name], seeds_of(rows[name])
    over = finished(workdir, name, seeds)
    for seed in seeds:
      if seed in over:
        total += row.num_steps + _EVALUATION_WORK
      elif (seed_dir(workdir, name, seed) / 'metrics').exists():
        total += min(row.num_steps, _last_step(seed_dir(workdir, name, seed)))
  return total


def _last_step(run: epath.Path) -> int:
  try:
    records = read_metrics(run)
  except (OSError, ValueError):
    # Its owner is just writing it; only the progress bar asks, and it asks again.
    return 0
  return records[-1]['step'] if records else 0
