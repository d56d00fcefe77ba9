"""Stage I, Stage II, evaluation and export by one command that can be stopped at any moment.

    python -m score_jax.pipeline --stage1=configs/stage1_math.py --stage2=configs/stage2_math.py \
      --workdir=runs/math --config.model.checkpoint=CHECKPOINT --config.data.path=DATA

`--config.X=Y` goes to all of them. The same command, given again, goes on where it was stopped:

    WORKDIR/stage1/       finished when there is a checkpoint of its last update
    WORKDIR/stage2/       likewise; begins from WORKDIR/stage1
    WORKDIR/evaluation/   finished when metrics.json is there
    WORKDIR/exported/     finished when config.json is there: a Hugging Face folder

What is finished is not done again. Each step is one of the package's programs in a process of its
own. SIGTERM is passed on to it; it saves, and both end with status 143.

With `--distributed` every host runs this same command. Training and evaluation are steps of all
together; the export is the first process's alone, and the others wait for it.
"""

import argparse
import dataclasses
import os
import pathlib
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from etils import epath

from score_jax import program
from score_jax.distributed import is_first_process
from score_jax.runs.files import absolute
from score_jax.runs.stored import DIRECTORY, committed_steps

_STOPPED = 143  # what a shell calls the end by SIGTERM
_SETTLE_S, _POLL_S = 60.0, 1.0  # until what the first process wrote must be there for all
_NUM_STEPS, _INIT = '--config.train.num_steps=', '--config.init.path='


@dataclasses.dataclass(frozen=True)
class Step:
  """One step of a pipeline.

  Attributes:
    folder: what it makes; the folder's name is the step's.
    command: a program of the package and its arguments: what comes after `python -m`.
    is_finished: looks at the disk.
    is_shared: whether all processes take part; else it is the first one's, without an accelerator.
    draft: where the command writes if it cannot write to `folder`; copied to there then.
  """

  folder: epath.Path
  command: tuple[str, ...]
  is_finished: Callable[[], bool]
  is_shared: bool = True
  draft: epath.Path | None = None


def num_updates(config: str, overrides: Sequence[str]) -> int:
  """Reads how many updates a stage makes.

  Args:
    config: a config file as `--config` takes it, FILE or FILE:PRESET.
    overrides: `--config.X=Y`, the last one counts.

  Raises:
    ValueError: if the file is no config of a stage of RL, or the override is no number.
  """
  path, _, preset = config.partition(':')
  if not pathlib.Path(path).is_file():
    raise ValueError(f'there is no config file {path}')
  try:
    loaded = runpy.run_path(path)['get_config'](*filter(None, [preset]))
    method, num_steps = loaded.supervised.method, loaded.train.num_steps
  except Exception as error:  # whatever a file of Python may raise
    raise ValueError(f'{config} is no config: {type(error).__name__}: {error}') from error
  if method:
    raise ValueError(f'{config} is no stage of RL: supervised.method={method!r}')
  given = [text.removeprefix(_NUM_STEPS) for text in overrides if text.startswith(_NUM_STEPS)]
  if given and not given[-1].isdecimal():
    raise ValueError(f'{_NUM_STEPS}{given[-1]} is no number of updates')
  return int(given[-1]) if given else num_steps


def make_steps(
  stage1: str, stage2: str, workdir: epath.PathLike, overrides: Sequence[str] = ()
) -> list[Step]:
  """Lists the steps of a pipeline, in order.

  Args:
    stage1: Stage I's config, FILE or FILE:PRESET.
    stage2: Stage II's.
    workdir: where all of it goes, local or in a bucket.
    overrides: `--config.X=Y` for all of them.

  Returns:
    Stage I, Stage II, evaluation, export.

  Raises:
    ValueError: as `num_updates`, or if the overrides name another beginning of Stage II.
  """
  if any(text.startswith(_INIT) for text in overrides):
    raise ValueError(f'{_INIT}...: Stage II begins from Stage I of the same --workdir')
  workdir = absolute(workdir)
  run1, run2 = workdir / 'stage1', workdir / 'stage2'
  evaluation, exported = workdir / 'evaluation', workdir / 'exported'
  # A folder in a bucket cannot appear at once, which is what the export promises.
  draft = epath.Path(tempfile.gettempdir()) / f'score_jax_exported_{os.getpid()}'
  draft = draft if '://' in str(workdir) else None

  flags1 = (f'--config={stage1}', *overrides)
  # Evaluation and export read them too: mesh and paths may be others than when Stage II ended.
  flags2 = (f'--config={stage2}', f'{_INIT}{run1}', *overrides)
  of_run2 = (f'--run={run2}', '--as_trained', *flags2)

  def training(run: epath.Path, config: str, flags: tuple[str, ...]) -> Step:
    num_steps = num_updates(config, overrides)
    return Step(
      run,
      ('score_jax.main', f'--workdir={run}', *flags),
      lambda: max(committed_steps(run / DIRECTORY), default=-1) >= num_steps,
    )

  return [
    training(run1, stage1, flags1),
    training(run2, stage2, flags2),
    Step(
      evaluation,
      ('score_jax.evaluate', f'--workdir={evaluation}', *of_run2),
      (evaluation / 'metrics.json').exists,
    ),
    Step(
      exported,
      ('score_jax.export', f'--workdir={draft or exported}', *of_run2),
      (exported / 'config.json').exists,
      is_shared=False,
      draft=draft,
    ),
  ]


def first_unfinished(steps: Sequence[Step]) -> int:
  """Finds where to go on.

  Args:
    steps: of a pipeline, in order.

  Returns:
    The index of the first step that is not finished; their number if all are.

  Raises:
    ValueError: if a later step is finished already: it was made from something older.
  """
  finished = [step.is_finished() for step in steps]
  index = [*finished, False].index(False)
  later = [str(step.folder) for step, done in zip(steps, finished, strict=True) if done][index:]
  if later:
    raise ValueError(
      f'{steps[index].folder} is not finished, but {", ".join(later)} is there, made from an '
      'earlier state of it: move that away, or choose another --workdir'
    )
  return index


def publish(draft: epath.Path, folder: epath.Path) -> None:
  """Moves a model folder to where it cannot appear at once.

  Without `config.json` no reader takes a folder for a model, so that file comes last.

  Args:
    draft: a local folder of files, removed at the end.
    folder: where to; files of the same names are replaced.
  """
  folder.mkdir(parents=True, exist_ok=True)
  for file in sorted(draft.iterdir(), key=lambda file: (file.name == 'config.json', file.name)):
    with file.open('rb') as reader, (folder / file.name).open('wb') as writer:
      shutil.copyfileobj(reader, writer, 1 << 24)
  draft.rmtree()


class Runner:
  """Runs the steps of a pipeline, one at a time, and passes SIGTERM on."""

  def __init__(self, is_distributed: bool):
    """Makes one; `is_distributed` says whether other hosts run the same steps."""
    self._is_distributed = is_distributed
    self._process: subprocess.Popen | None = None
    self._is_stopping = False

  def stop(self, signal_number: int, _) -> None:
    """Asks the step under way to save and end; a signal handler."""
    self._is_stopping = True
    # Ctrl-C reaches the step by itself.
    if self._process is not None and signal_number != signal.SIGINT:
      self._process.terminate()

  def run(self, steps: Sequence[Step]) -> int:
    """Runs what is not finished.

    Args:
      steps: of a pipeline, in order.

    Returns:
      0 when all is finished, 143 after SIGTERM, else the exit status of the step that failed.

    Raises:
      ValueError: as `first_unfinished`.
      RuntimeError: as `is_first_process`, or if a step ended well and left nothing.
    """
    start = first_unfinished(steps)
    for step in steps[:start]:
      print(f'== {step.folder} is finished', flush=True)
    for step in steps[start:]:
      status = _STOPPED if self._is_stopping else self._run_step(step)
      if status:
        how = 'was stopped' if status == _STOPPED else f'failed with exit status {status}'
        print(f'== {step.folder}: {how}; the same command goes on from here', file=sys.stderr)
        return status
    return 0

  def _run_step(self, step: Step) -> int:
    if not step.is_shared and not is_first_process(os.environ, self._is_distributed):
      print(f'== {step.folder}: the first process makes it', flush=True)
      return self._wait(step, None)
    if step.draft is not None and step.draft.exists():
      step.draft.rmtree()  # half of one, from a start that was killed
    command = [sys.executable, '-m', *step.command]
    environment = dict(os.environ)
    if not step.is_shared:
      environment['JAX_PLATFORMS'] = 'cpu'  # one host of a pod cannot open its accelerator alone
    elif self._is_distributed:
      command.append('--distributed')
    print(f'== {step.folder}: {shlex.join(command)}', flush=True)
    self._process = subprocess.Popen(command, env=environment)
    if self._is_stopping:  # the signal came while the process was being made
      self._process.terminate()
    status = self._process.wait()
    self._process = None
    if status:
      return 128 - status if status < 0 else status
    if step.draft is not None:
      publish(step.draft, step.folder)
    return self._wait(step, _SETTLE_S)

  def _wait(self, step: Step, limit_s: float | None) -> int:
    """Waits until a step is finished on the disk; returns 0, or 143 after SIGTERM."""
    start_s = time.monotonic()
    while not step.is_finished():
      if self._is_stopping:
        return _STOPPED
      if limit_s is not None and time.monotonic() - start_s > limit_s:
        raise RuntimeError(f'{step.folder}: no error, but it is not finished after {limit_s:g} s')
      time.sleep(_POLL_S)
    return 0


def main(arguments: Sequence[str]) -> int:
  """Runs the pipeline, or with --dry_run says what it would run.

  Args:
    arguments: of the command line, without the program's name.

  Returns:
    The exit status.
  """
  parser = argparse.ArgumentParser(
    prog='python -m score_jax.pipeline', allow_abbrev=False, epilog='--config.X=Y: for all steps'
  )
  parser.add_argument('--stage1', required=True, help="Stage I's config, FILE or FILE:PRESET")
  parser.add_argument('--stage2', required=True, help="Stage II's config, FILE or FILE:PRESET")
  parser.add_argument('--workdir', required=True, help='folder of all runs, or a bucket (gs://)')
  parser.add_argument('--distributed', action='store_true', help='one of several hosts, all alike')
  parser.add_argument('--dry_run', action='store_true', help='print the steps and what is finished')
  given, overrides = parser.parse_known_args(arguments)
  unknown = [text for text in overrides if not text.startswith('--config.') or '=' not in text]
  try:
    if unknown:
      raise ValueError(f'unknown arguments {unknown}; keys of both configs are --config.X=Y')
    steps = make_steps(given.stage1, given.stage2, given.workdir, overrides)
    if given.dry_run:
      for step in steps:
        state = 'finished' if step.is_finished() else 'to do'
        print(f'{state}: python -m {shlex.join(step.command)}')
      return 0
    runner = Runner(given.distributed)
    signal.signal(signal.SIGTERM, runner.stop)
    signal.signal(signal.SIGINT, runner.stop)
    return runner.run(steps)
  except (ValueError, OSError, RuntimeError) as error:
    return program.fail(error)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
