"""What the programs share: the flags --config and --workdir, and errors for people."""

import os
import sys

from absl import app, flags, logging
from ml_collections import config_flags
from ml_collections.config_flags.tuple_parser import TupleParser

from score_jax.core.config_check import check_config


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
WORKDIR = flags.DEFINE_string('workdir', None, 'Run directory; runs/NAME_OF_STAGE by default.')


def fail(message: object) -> None:
  """Ends the program with a message for a person and exit status 2.

  Args:
    message: what was wrong, where, and what to do.

  Raises:
    SystemExit: always.
  """
  print(f'error: {message}', file=sys.stderr)
  raise SystemExit(2)


def checked_config(default=None):
  """Reads the flags' config and refuses unknown keys, wrong types and missing paths.

  Args:
    default: the config to take where --config is not set.

  Returns:
    The config.

  Raises:
    SystemExit: with one line for each thing that is wrong.
  """
  from score_jax.setup.checks import missing_inputs

  config = default if CONFIG.value is None else CONFIG.value
  if config is None:
    fail('--config is not set, for example --config=configs/stage1_math.py')
  try:
    check_config(config)
  except OSError as error:  # ml_collections tells of an unreadable file on the first use
    fail(f'--config: {error}')
  missing = missing_inputs(config)
  if missing:
    fail('this config needs paths that are not there:\n  ' + '\n  '.join(missing))
  return config


def run_program(body) -> None:
  """Runs a program's body under absl; a wrong input ends it with a message, not a traceback.

  Args:
    body: called without arguments.
  """

  def main(argv):
    if len(argv) > 1:
      fail(f'unknown arguments {argv[1:]}; flags are written --name=value')
    logging.set_verbosity(logging.WARNING)
    try:
      body()
    except (ValueError, OSError, RuntimeError) as error:
      if os.environ.get('SCORE_TRACEBACK'):
        raise
      fail(f'{error}\n(set SCORE_TRACEBACK=1 to see where this was raised)')

  try:
    app.run(main, flags_parser=_parse_flags)
  except KeyboardInterrupt:
    print('interrupted; the same command goes on from the last checkpoint', file=sys.stderr)
    raise SystemExit(130) from None


def _parse_flags(argv):
  """As absl's own parser, but a bad config path, key or value is a message, not a traceback."""
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:  # absl would end with status 1, which programs give another meaning
    lines = str(error).strip().splitlines()  # of a config file's error the whole traceback
    return fail(f'{lines[-1]}; --help shows the flags')
  except (AttributeError, LookupError, TypeError, ValueError, OSError) as error:
    return fail(f'in the command line or config file: {error}')
