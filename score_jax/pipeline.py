r"""Stage I, Stage II, evaluation and export by one command that can be stopped at any moment.

    python -m score_jax.pipeline --stage1=configs/stage1_math.py --stage2=configs/stage2_math.py \
      --workdir=runs/math --config.model.checkpoint=CHECKPOINT --config.data.path=DATA

`--config.X=Y` goes to all of them. The same command, given again, goes on where it was stopped:

    WORKDIR/stage1/       finished when there is a checkpoint of its last update
    WORKDIR/stage2/       likewise; begins from WORKDIR/stage1
    WORKDIR/evaluation/   finished when metrics.json is there
    WORKDIR/exported/     finished when config.json is there: a Hugging Face folder

What is finished is not done again, and a stage that was finished with other settings is refused:
the rest would be made from it. Each step is one of the package's programs in a process of its
own. SIGTERM and Ctrl-C are passed on to it; it saves, and both end (status 143 or 130).

With `--distributed` every host runs this same command. Training and evaluation are steps of all
together; the export is the first process's alone, and the others wait for it while it gives signs
of life, and for `config.train.hang_s` after the last one.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from etils import epath
from ml_collections import ConfigDict

from score_jax.cli import program
from score_jax.cli.distributed import is_first_process, process_id
from score_jax.cli.run_input import check_is_of, stage_config
from score_jax.runs.alive import last_sign, signs_of_life
from score_jax.runs.files import absolute
from score_jax.runs.lock import one_writer
from score_jax.runs.stored import DIRECTORY, committed_steps
from score_jax.runs.watchdog import STATUS

_STOPPED = (143, 130)  # what a shell calls the ends by SIGTERM and Ctrl-C
_SETTLE_S, _POLL_S = 60.0, 1.0  # until what the first process wrote must be there for all
_SIGN_S = 60.0  # from one sign of life of the export to the next, at most
_INIT = '--config.init.path='


@dataclasses.dataclass(frozen=True)
class Step:
  """One step of a pipeline.

  Attributes:
    folder: what it makes; the folder's name is the step's.
    command: a program of the package and its arguments: what comes after `python -m`.
    is_finished: looks at the disk; ValueError if what is there was made with another config.
    is_shared: whether all processes take part; else it is the first one's, without an accelerator.
    draft: where the command writes if it cannot write to `folder`; copied to there then.
    limit_s: [seconds] that the others wait for a sign of life of the first process, which changes
      a file beside the folder; 0 has no limit.
  """

  folder: epath.Path
  command: tuple[str, ...]
  is_finished: Callable[[], bool]
  is_shared: bool = True
  draft: epath.Path | None = None
  limit_s: float = 0.0

  @property
  def signs(self) -> epath.Path:
    """The file that the first process changes while it makes the folder."""
    return self.folder.parent / f'{self.folder.name}_is_made'


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
    ValueError: as `stage_config`, or if the overrides name another beginning of Stage II.
  """
  if any(text.startswith(_INIT) for text in overrides):
    raise ValueError(f'{_INIT}...: Stage II begins from Stage I of the same --workdir')
  workdir = absolute(workdir)
  run1, run2 = workdir / 'stage1', workdir / 'stage2'
  evaluation, exported = workdir / 'evaluation', workdir / 'exported'
  # A folder in a bucket cannot appear at once, which is what the export promises. The next start
  # finds what an export that was killed left: it has the same name, and the export's own beside it.
  name = hashlib.blake2s(str(workdir).encode(), digest_size=8).hexdigest()
  draft = epath.Path(tempfile.gettempdir()) / f'score_jax_exported_{name}'
  draft = draft if '://' in str(workdir) else None

  flags1 = (f'--config={stage1}', *overrides)
  # Evaluation and export read them too: mesh and paths may be others than when Stage II ended.
  flags2 = (f'--config={stage2}', f'{_INIT}{run1}', *overrides)
  of_run2 = (f'--run={run2}', '--as_trained', *flags2)

  config1, config2 = stage_config(stage1, flags1[1:]), stage_config(stage2, flags2[1:])

  def training(run: epath.Path, config: ConfigDict, flags: tuple[str, ...]) -> Step:
    def is_finished() -> bool:
      if max(committed_steps(run / DIRECTORY), default=-1) < config.train.num_steps:
        return False
      check_is_of(run, config)
      return True

    return Step(run, ('score_jax.main', f'--workdir={run}', *flags), is_finished)

  return [
    training(run1, config1, flags1),
    training(run2, config2, flags2),
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
      limit_s=config2.train.hang_s,
    ),
  ]


def first_unfinished(steps: Sequence[Step]) -> int:
  """Finds where to go on.

  Args:
    steps: of a pipeline, in order.

  Returns:
    The index of the first step that is not finished; their number if all are.

  Raises:
    ValueError: if a later step is finished already: it was made from something older. Or if a step
      was made with another config.
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
  """Runs the steps of a pipeline, one at a time, and passes signals on."""

  def __init__(self, is_distributed: bool):
    """Makes one; `is_distributed` says whether other hosts run the same steps."""
    self._is_distributed = is_distributed
    self._process: subprocess.Popen | None = None
    self._stopped_by = 0

  def stop(self, signal_number: int, _) -> None:
    """Asks the step to save and end; a signal handler. A terminal's Ctrl-C reaches it besides."""
    self._stopped_by = signal_number
    if self._process is not None:
      self._process.send_signal(signal_number)

  def run(self, steps: Sequence[Step]) -> int:
    """Runs what is not finished.

    Args:
      steps: of a pipeline, in order.

    Returns:
      0 when all is finished, 143 after SIGTERM, 130 after Ctrl-C, 75 if the first process did not
      do its part, else the exit status of the step that failed.

    Raises:
      ValueError: as `first_unfinished`.
      RuntimeError: as `is_first_process`, or if a step ended well and left nothing.
    """
    start = first_unfinished(steps)
    for step in steps[:start]:
      print(f'== {step.folder} is finished', flush=True)
    for step in steps[start:]:
      status = 128 + self._stopped_by if self._stopped_by else self._run_step(step)
      if status:
        how = 'was stopped' if status in _STOPPED else f'failed with exit status {status}'
        print(f'== {step.folder}: {how}; the same command goes on from here', file=sys.stderr)
        return status
    return 0

  def _run_step(self, step: Step) -> int:
    if not step.is_shared and not is_first_process(os.environ, self._is_distributed):
      print(f'== {step.folder}: the first process makes it', flush=True)
      status = self._wait(step, step.limit_s, step.signs)
      if status == STATUS:
        print(
          f'== {step.folder}: process 0 makes it, and gave no sign of life for {step.limit_s:g} s '
          "(config.train.hang_s): it failed or is gone; see its host's log",
          file=sys.stderr,
        )
      return status
    if step.draft is not None and step.draft.exists():
      step.draft.rmtree()  # of a start that was killed on the way to the bucket
    command = [sys.executable, '-m', *step.command]
    environment = dict(os.environ)
    if not step.is_shared:
      environment['JAX_PLATFORMS'] = 'cpu'  # one host of a pod cannot open its accelerator alone
    elif self._is_distributed:
      command.append('--distributed')
    print(f'== {step.folder}: {shlex.join(command)}', flush=True)
    others_wait = self._is_distributed and not step.is_shared
    every_s = min(_SIGN_S, step.limit_s / 4 or _SIGN_S)
    with signs_of_life(step.signs, every_s) if others_wait else contextlib.nullcontext():
      self._process = subprocess.Popen(command, env=environment)
      if self._stopped_by:  # the signal came while the process was being made
        self._process.send_signal(self._stopped_by)
      status = self._process.wait()
      self._process = None
      if status:
        return 128 - status if status < 0 else status
      if step.draft is not None:
        publish(step.draft, step.folder)
    status = self._wait(step, _SETTLE_S)
    if status == STATUS:
      raise RuntimeError(f'{step.folder}: no error, but it is not finished after {_SETTLE_S:g} s')
    return status

  def _wait(self, step: Step, limit_s: float, signs: epath.Path | None = None) -> int:
    """Waits until a step is finished on the disk: 0 then, 75 after `limit_s`, as `run` at a signal.

    Signs of life begin the limit anew.
    """
    start_s, sign = time.monotonic(), ''
    while not step.is_finished():
      if self._stopped_by:
        return 128 + self._stopped_by
      if signs is not None and last_sign(signs) != sign:
        start_s, sign = time.monotonic(), last_sign(signs)
      if limit_s and time.monotonic() - start_s > limit_s:
        return STATUS
      time.sleep(_POLL_S)
    return 0


def main(arguments: Sequence[str]) -> int:
  """Runs the pipeline, or with --dry_run says what it would run.

  Args:
    arguments: of the command line, without the program's name.

  Returns:
    The exit status.
  """
  parser = argparse.ArgumentParser('score_jax.pipeline', description=__doc__, allow_abbrev=False)
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  parser.add_argument('--stage1', required=True, help="Stage I's config, FILE or FILE:PRESET")
  parser.add_argument('--stage2', required=True, help="Stage II's config, FILE or FILE:PRESET")
  parser.add_argument('--workdir', required=True, help='folder of all runs, or a bucket (gs://)')
  parser.add_argument('--distributed', action='store_true', help='one of several hosts, all alike')
  parser.add_argument('--dry_run', action='store_true', help='print the steps and what is finished')
  given, overrides = parser.parse_known_args(arguments)
  unknown = [text for text in overrides if not text.startswith('--config.') or '=' not in text]
  try:
    if unknown:
      raise ValueError(f'unknown arguments {shlex.join(unknown)}; keys are --config.X=Y')
    if not given.workdir:
      raise ValueError('--workdir= is empty, as from a variable that is not set: name a folder')
    if given.distributed:
      process_id(os.environ)  # a wrong one would be noticed after the training only
    steps = make_steps(given.stage1, given.stage2, given.workdir, overrides)
    if given.dry_run:
      for step in steps:
        state = 'finished' if step.is_finished() else 'to do'
        print(f'{state}: python -m {shlex.join(step.command)}')
      return 0
    runner = Runner(given.distributed)
    signal.signal(signal.SIGTERM, runner.stop)
    signal.signal(signal.SIGINT, runner.stop)
    with contextlib.nullcontext() if given.distributed else one_writer(given.workdir):
      return runner.run(steps)
  except (ValueError, OSError, RuntimeError) as error:
    return program.fail(error)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
