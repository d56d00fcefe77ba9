"""A run as the input of a program: the flags that name it, and the config it was made with."""

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from score_jax.core.config import NOT_IDENTITY, check_config
from score_jax.runs.identity import config_differences, differences_told, read_run_config

RUN = flags.DEFINE_string('run', None, 'Run directory; the base model by default.')
WHICH = flags.DEFINE_enum(
  'which', 'best', ['best', 'latest'], "The run's best checkpoint by training reward, or its last."
)
NUM_PROBLEMS = flags.DEFINE_integer(
  'num_problems', None, 'Evaluate this many of the problems; config.eval.num_problems by default.'
)
TEMPERATURE = flags.DEFINE_float(
  'temperature', None, '0 is greedy; config.eval.temperature by default.'
)

_AS_TRAINED = flags.DEFINE_bool(
  'as_trained', False, "--config may differ from the run's in mesh, paths and evaluation only."
)


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
  if lines := differences_told(differences, NOT_IDENTITY):
    raise ValueError(f'--as_trained: the config is not that of {run}:\n{lines}')


def run_config(run: epath.PathLike) -> ConfigDict:
  """Reads the config that a run directory was made with.

  Args:
    run: the run directory, or one of its checkpoints.

  Returns:
    The config.

  Raises:
    ValueError: if the directory holds no readable config, or one of another version.
  """
  stored = read_run_config(run)
  if stored is None:
    raise ValueError(f'--run={run} is neither a run directory nor a checkpoint of one')
  stored.pop('content', None)
  config = ConfigDict(stored)
  check_config(config)
  return config
