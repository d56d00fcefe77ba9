"""What the programs share: the flags --config and --workdir, help, and errors for people."""

import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags.tuple_parser import TupleParser

from score_jax.core.config import read_config
from score_jax.core.config_check import check_config
from score_jax.core.errors import in_words
from score_jax.runs.interrupts import STATUS as INTERRUPTED
from score_jax.runs.interrupts import interruptible


class _SequenceParser(flags.ArgumentParser):
  """Reads a tuple as ml_collections does, whose own parser makes one tuple of all the flags.

  By that, (8, 9) of a script and (10, 11) after it were four turns. Here the last flag counts, as
  it does for a number.
  """

  def parse(self, argument):
    return TupleParser().parse(argument)

  def flag_type(self):
    return 'tuple'


for _type in (tuple, list):
  config_flags.register_flag_parser_for_type(_type, _SequenceParser())
CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file, for example a stage.')
WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Folder to write to; by default one in runs/ with the name of what is made, of an evaluation one '
  'in --run. An export needs it.',
)


# What a config may be of, its program, and a file for example.
KINDS = {
  'a run': ('score_jax.main', 'configs/stage1_math.py'),
  'a quickstart': ('score_jax.quickstart', 'configs/quickstart.py'),
  'a replication': ('score_jax.replicate', 'configs/replicate_arithmetic.py'),
  'a pretraining': ('score_jax.pretrain', 'configs/pretrain_arithmetic.py'),
}
_HELP = re.compile('--?(h|help|helpshort|helpfull)')


def fail(message: object) -> None:
  """Ends the program with a message for a person and exit status 2.

  Args:
    message: what was wrong, where, and what to do; an exception is put in words.

  Raises:
    SystemExit: always.
  """
  told = in_words(message) if isinstance(message, BaseException) else message
  print(f'error: {told}', file=sys.stderr)
  raise SystemExit(2)


def kind_of(config: ConfigDict) -> str:
  """What a config is of: one of `KINDS`; 'a run' for whatever is of nothing else."""
  if 'phases' in config:
    return 'a pretraining'
  if 'rows' in config:
    return 'a replication' if config.get('report') else 'a quickstart'
  return 'a run'


def check_kind(config: ConfigDict, file: str, *kinds: str) -> None:
  """Refuses a config of another program.

  Args:
    config: what the file makes.
    file: as `--config` takes it.
    kinds: those of `KINDS` that are wanted.

  Raises:
    ValueError: naming the right program.
  """
  kind = kind_of(config)
  if kind in kinds:
    return
  told = f'{file} is no config of {" or ".join(kinds)}, such as {KINDS[kinds[0]][1]}'
  if kind != 'a run' or 'rollout' in config:  # or it is of nothing that is known
    told += f'; it is of {kind}: python -m {KINDS[kind][0]} --config={file}'
  raise ValueError(told)


def given_config(*kinds: str, default: ConfigDict | None = None) -> ConfigDict:
  """The config that --config names.

  Args:
    kinds: those of `KINDS` that the program takes.
    default: the config to take where --config is not set.

  Returns:
    The config, of which only the kind is checked.

  Raises:
    SystemExit: if there is none, or one of another program.
  """
  if CONFIG.value is None:
    return default or fail(f'--config is not set, for example --config={KINDS[kinds[0]][1]}')
  try:
    check_kind(CONFIG.value, config_flags.get_config_filename(flags.FLAGS['config']), *kinds)
  except ValueError as error:
    fail(error)
  return CONFIG.value


def checked_config(default: ConfigDict | None = None) -> ConfigDict:
  """Reads the flags' config of a run; refuses unknown keys, wrong types and missing paths.

  Args:
    default: the config to take where --config is not set.

  Returns:
    The config.

  Raises:
    SystemExit: with one line for each thing that is wrong.
  """
  from score_jax.setup.checks import missing_inputs

  config = given_config('a run', default=default)
  check_config(config)
  missing = missing_inputs(config)
  if missing:
    fail('this config needs paths that are not there:\n  ' + '\n  '.join(missing))
  return config


def run_program(body: Callable[[], None], *shared: str) -> None:
  """Runs a program's body under absl; a wrong input ends it with a message, not a traceback.

  Args:
    body: called without arguments; a function of the program.
    shared: the flags of `score_jax.cli` that the program reads, beside those that it defines
      itself: the others are refused. Without any, it may read all.
  """

  def main(argv):
    if len(argv) > 1:
      fail(f'unknown arguments {" ".join(argv[1:])}; flags are written --name=value')
    logging.set_verbosity(logging.WARNING)
    try:
      body()
    except (ValueError, OSError, RuntimeError) as error:
      if os.environ.get('SCORE_TRACEBACK'):
        raise
      message = _with_notes(in_words(error), error)
      fail(f'{message}\n(set SCORE_TRACEBACK=1 to see where this was raised)')

  try:
    with interruptible(_interrupt, _kept):
      app.run(main, flags_parser=lambda argv: _parse_flags(argv, body.__module__, shared))
  except KeyboardInterrupt as error:
    print(_with_notes('interrupted', error), file=sys.stderr)
    raise SystemExit(INTERRUPTED) from None


def _interrupt() -> None:
  raise KeyboardInterrupt


def _kept() -> str:
  from score_jax.runs.lock import what_is_kept  # late: a wrong command line is refused at once

  return what_is_kept()


def _with_notes(message: object, error: BaseException) -> str:
  """A message with what is known of its error besides, such as what is kept."""
  return '; '.join([str(message), *getattr(error, '__notes__', [])])


def _flags_of(module: str) -> list[str]:
  """The names of the flags that a module defines, or all modules of a package do."""
  name = sys.argv[0] if module == '__main__' else module  # as absl calls it
  by_module = flags.FLAGS.flags_by_module_dict()
  found = [flag for key in by_module if f'{key}.'.startswith(f'{name}.') for flag in by_module[key]]
  return [flag.name for flag in found if not flag.name.startswith('config.')]


def help_text(about: str, names: Sequence[str]) -> str:
  """What --help prints.

  Args:
    about: the program's docstring, with an example of its use.
    names: of the flags of the program.

  Returns:
    The docstring, then a line or two for each flag, with its default.
  """
  helps = {name: flags.FLAGS[name].help for name in sorted(names)}
  for name in names:
    flag = flags.FLAGS[name]
    if flag.default not in (None, ''):
      helps[name] += ' (default ' + flag.default_as_str.strip("'") + ')'
  if 'config' in names:
    helps['config.KEY'] = 'Any key of the config, such as --config.seed=1; see docs/config.md.'
  wrapped = [
    textwrap.fill(f'--{name}  {text}', 100, initial_indent='  ', subsequent_indent='      ')
    for name, text in helps.items()
  ]
  return '\n'.join([about.strip(), '', 'Flags, written --NAME=VALUE:', *wrapped])


def _parse_flags(argv: Sequence[str], module: str, shared: Sequence[str]) -> list[str]:
  """As absl's own parser, but a bad config path, key or value is a message, not a traceback."""
  of_all = _flags_of('score_jax.cli')
  shared = shared or of_all
  if any(map(_HELP.fullmatch, argv[1:])):
    print(help_text(sys.modules[module].__doc__, [*_flags_of(module), *shared]))
    raise SystemExit(0)
  config_files = re.findall('^--?config(?:=|\n)(.*)$', '\n'.join(argv[1:]), re.MULTILINE)
  try:
    for file in config_files:
      if not file:
        fail('--config= is empty, as from a variable that is not set: name a file')
      read_config(file)  # it names the line of a file that fails
    rest = flags.FLAGS(argv)
  except flags.Error as error:  # absl would end with status 1, which programs give another meaning
    told = in_words(error).strip().splitlines()[-1]
    if 'config.' in told and not config_files:
      told += '; a key of the config needs --config=FILE before it'
    return fail(f'{told}; --help shows the flags')
  except (AttributeError, LookupError, TypeError, ValueError, OSError) as error:
    return fail(f'in the command line or config file: {in_words(error)}')
  for name in of_all:
    if name not in shared and flags.FLAGS[name].present:
      fail(f'this program reads no --{name}; --help shows the flags')
  return rest
