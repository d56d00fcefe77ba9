"""A run as the input of a program: the flags that name it, and the config it was made with."""

import shlex
from collections.abc import Callable, Sequence

from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from score_jax.cli import distributed, program
from score_jax.core.config import NOT_IDENTITY, read_config
from score_jax.core.config_check import check_config
from score_jax.core.errors import in_words
from score_jax.runs.directories import check_run
from score_jax.runs.identity import (
  CONFIG_FILE,
  check_identity,
  config_differences,
  describe_differences,
  read_run_config,
)
from score_jax.tokenizers.base import Tokenizer

RUN = flags.DEFINE_string('run', None, 'Run directory; the base model by default.')
WHICH = flags.DEFINE_enum(
  'which', 'best', ['best', 'latest'], "The run's best checkpoint by training reward, or its last."
)
NUM_PROBLEMS = flags.DEFINE_integer(
  'num_problems',
  None,
  'Evaluate this many of the problems; config.eval.num_problems by default.',
  lower_bound=0,
)
TEMPERATURE = flags.DEFINE_float(
  'temperature', None, '0 is greedy; config.eval.temperature by default.', lower_bound=0
)

_AS_TRAINED = flags.DEFINE_bool(
  'as_trained', False, "--config may differ from the run's in mesh, paths and evaluation only."
)
# What programs read that take a policy.
POLICY_FLAGS = ('run', 'which', 'config', 'as_trained', 'distributed')


def check_as_trained(config: ConfigDict, run: epath.PathLike) -> None:
  """With --as_trained, holds a config against that of a run.

  Args:
    config: of this start.
    run: the run directory.

  Raises:
    ValueError: with what differs and may not.
  """
  if not _AS_TRAINED.value:
    return
  differences = config_differences(run_config(run).to_dict(), config.to_dict())
  if lines := describe_differences(differences, NOT_IDENTITY):
    raise ValueError(f'--as_trained: the config is not that of {run}:\n{lines}')


def run_config(run: epath.PathLike) -> ConfigDict:
  """Reads the config that a run directory was made with.

  Args:
    run: the run directory, or one of its checkpoints.

  Returns:
    The config.

  Raises:
    ValueError: if it is no run with a checkpoint, or has a config of another version.
  """
  check_run(run, '--run', needs_config=True)
  stored = read_run_config(run)
  stored.pop('content', None)
  config = ConfigDict(stored)
  check_config(config)
  return config


def policy_config() -> ConfigDict:
  """Reads the config of the policy that the flags name: that of --config, or else of --run.

  Returns:
    The checked config.

  Raises:
    SystemExit: if there is no config, or paths are missing that it needs.
    ValueError: if --run is no run with a checkpoint; for a config that is wrong, or with
      --as_trained not the run's.
  """
  run = RUN.value
  if run:
    check_run(run, '--run')
  config = program.checked_config(run_config(run) if run and program.CONFIG.value is None else None)
  if run:
    check_as_trained(config, run)
  return config


def load_policy(config: ConfigDict, check: Callable[[Tokenizer], None]):
  """Joins the other processes and loads the policy that --run and --which name.

  Args:
    config: from `policy_config`.
    check: called before any weight is read, to refuse what will be done with the policy.

  Returns:
    A `score_jax.setup.policy.Policy`; the config's base model where --run is not set.

  Raises:
    ValueError: if the base model or the run cannot be read; whatever `check` raises.
  """
  # Imported here: programs that load no policy start without these.
  from score_jax.core.sharding import make_mesh
  from score_jax.setup.base_model import load_base, read_header
  from score_jax.setup.policy import Policy
  from score_jax.setup.trainable import check_trained

  distributed.join()
  mesh, header = make_mesh(config.mesh), read_header(config)
  if RUN.value:
    check_trained(RUN.value, header.without_weights(mesh))
  check(header.tokenizer)
  base = load_base(config, mesh, header=header)
  if not RUN.value:
    return Policy.of_base(config, base)
  return Policy.of_run(config, base, RUN.value, WHICH.value)


def stage_config(file: str, overrides: Sequence[str]) -> ConfigDict:
  """Reads the config of a stage of RL as the stage's own program will.

  Args:
    file: a config file as `--config` takes it, FILE or FILE:PRESET.
    overrides: `--config.X=Y`, the last one counts.

  Returns:
    The checked config.

  Raises:
    ValueError: if the file is no config of a stage of RL, or an override names no key of it or has
      a value that the key does not take.
  """
  config = read_config(file)
  program.check_kind(config, file, 'a run')
  values, arguments = flags.FlagValues(), ['', *overrides]
  try:
    config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=arguments)
    values(arguments)
    check_config(config)
  except (flags.Error, AttributeError, LookupError, TypeError, ValueError) as error:
    command = shlex.join([file, *overrides])
    raise ValueError(f'{command} is no config: {in_words(error)}') from error
  if method := config.supervised.method:
    raise ValueError(f'{file} is no stage of RL: config.supervised.method={method!r}')
  return config


def check_is_of(run: epath.PathLike, config: ConfigDict) -> None:
  """Makes sure that a run was made with a config, as starting it again would; writes nothing.

  Args:
    run: the run directory.
    config: what it should have been made with; what may change between two starts may differ.

  Raises:
    ValueError: with what differs and may not, or if the directory holds no config.
  """
  if not (epath.Path(run) / CONFIG_FILE).exists():
    raise ValueError(
      f'{run} holds checkpoints but no {CONFIG_FILE}, and which run they are of is '
      'unknown: choose another --workdir, or move these away'
    )
  # What the paths held is known to a run only that reads it.
  check_identity(run, config.to_dict(), (*NOT_IDENTITY, 'content'))
