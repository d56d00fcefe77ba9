"""Rates and memory of a step, profiles of steps."""

import dataclasses
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from makers import ROOT

from score_jax.core.config import read_config
from score_jax.core.types import Episode
from score_jax.model import flops
from score_jax.model.decoder import DecoderConfig
from score_jax.runs.metrics import read_metrics
from score_jax.setup import run as setup_run
from score_jax.training import profiling
from score_jax.training.train import train

SIZES = DecoderConfig(512, 2, 128, 512, num_heads=4, num_kv_heads=2, head_dim=32)


# Rates and memory.


def episode_of(is_token, is_sampled):
  return Episode(**{f.name: None for f in dataclasses.fields(Episode)}).replace(
    is_token=np.array(is_token, bool), is_sampled=np.array(is_sampled, bool)
  )


def test_rates_by_hand(monkeypatch):
  """Two samples of one problem: a prompt of 2, then 2 and 1 sampled tokens, in 2 seconds."""
  episode = episode_of([[1, 1, 0, 1, 1], [1, 1, 0, 1, 0]], [[0, 0, 0, 1, 1], [0, 0, 0, 1, 0]])
  arguments = (SIZES, episode, 3, 2, False, 2.0)
  work = flops.update_flops(SIZES, [4, 3], 3) + flops.sampling_flops(SIZES, [4, 3], [2, 2], 3, 2)
  rates = {
    'time/sampled_tokens_per_s': 3 / 2,
    'time/trained_tokens_per_s': 7 / 2,
    'time/model_flops_per_s': work / 2,
  }
  monkeypatch.setattr(jax, 'devices', lambda: [SimpleNamespace(device_kind='a chip')] * 4)
  assert profiling.step_rates(*arguments) == rates
  monkeypatch.setitem(flops.PEAK_FLOPS, 'a chip', 10 * work)
  assert profiling.step_rates(*arguments) == rates | {'time/mfu': pytest.approx(1 / 80)}
  monkeypatch.setattr(jax, 'process_count', lambda: 4)
  assert profiling.step_rates(*arguments)['time/mfu'] == pytest.approx(4 / 80)


def test_peak_memory(monkeypatch):
  host = profiling.peak_memory()['host/peak_bytes']
  kept = np.ones(2**25)  # 256 MiB, more than anything that was let go of before
  assert profiling.peak_memory()['host/peak_bytes'] >= host
  assert host > 2**26 and kept.nbytes == 2**28
  devices = [SimpleNamespace(memory_stats=lambda n=n: {'peak_bytes_in_use': n}) for n in (5, 7)]
  monkeypatch.setattr(jax, 'local_devices', lambda: devices)
  assert profiling.peak_memory()['device/peak_bytes'] == 7
  bare = [SimpleNamespace(memory_stats=lambda: None)]
  monkeypatch.setattr(jax, 'local_devices', lambda: bare)
  assert profiling.peak_memory().keys() == {'host/peak_bytes'}


def test_progress_bar():
  values = {'time/sampled_tokens_per_s': 99.6, 'host/peak_bytes': 3e9}
  assert profiling.postfix(values) == 'tokens/s=100 peak=3.0GB'
  values |= {'time/mfu': 0.5, 'device/peak_bytes': 7e10}
  assert profiling.postfix(values) == 'tokens/s=100 mfu=0.50 peak=70.0GB'


def test_keys_of_accelerators_are_documented(monkeypatch):
  text = ROOT / 'docs' / 'metrics.md'
  title, _, rest = text.read_text().partition('## Accelerators\n')
  documented = set(re.findall(r'^\| `(.+?)` ', rest.partition('\n#')[0], re.M))
  device = SimpleNamespace(device_kind='TPU v4', memory_stats=lambda: {'peak_bytes_in_use': 1})
  on_host = step_keys()
  monkeypatch.setattr(jax, 'devices', lambda: [device])
  monkeypatch.setattr(jax, 'local_devices', lambda: [device])
  assert step_keys() - on_host == documented - on_host and title


def step_keys():
  rates = profiling.step_rates(SIZES, episode_of([[1]], [[1]]), 1, 1, False, 1.0)
  return {*rates, *profiling.peak_memory()}


# Profiles.


def marks(workdir):
  """What the profiles of a run hold: (numbers of the steps, names of all events)."""
  steps, names = [], set()
  for path in sorted(workdir.rglob('*.xplane.pb')):
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
      for event in (event for line in plane.lines for event in line.events):
        names.add(event.name)
        if event.name == 'train':
          steps.append(dict(event.stats)['step_num'])
  return sorted(steps), names


@pytest.fixture(scope='module')
def profiled_run(tiny_run, tmp_path_factory):
  """A run that ends inside its window, and the function that starts it with another one."""
  workdir = tmp_path_factory.mktemp('profiled')

  def start(profile, num_steps):
    config = read_config(str(tiny_run))
    config.profile, config.train.num_steps = profile, num_steps
    setup = setup_run.prepare(config)
    train(setup, workdir)
    setup.task.close()
    return workdir

  start('2:9', 3)
  return start


def test_a_run_writes_its_profile(profiled_run):
  """Steps 2 and 3 of 3, with their phases; started again behind its window it profiles nothing."""
  workdir = profiled_run('2:3', 4)
  steps, names = marks(workdir)
  assert steps == [2, 3]
  assert {'rollout', 'grade', 'update'} <= names
  assert [record['step'] for record in read_metrics(workdir)] == [1, 2, 3, 4]
  files = sorted(path.suffix for path in (workdir / 'profile').rglob('*') if path.is_file())
  assert '.pb' in files and not list(workdir.rglob('*.tmp*'))


@pytest.mark.parametrize(
  ('window', 'num_steps', 'first', 'made'),
  [('2:3', None, 4, '4 to the last'), ('2:3', 6, 4, '4 to 6'), ('7:9', 6, 1, '1 to 6')],
)
def test_a_window_without_a_step_is_told(tmp_path, caplog, window, num_steps, first, made):
  profile = profiling.StepProfile(window, epath.Path(tmp_path), num_steps)
  for step in (first, first + 1):
    profile.begin(step, None)
  assert [record.getMessage() for record in caplog.records] == [
    f'config.profile={window}: steps {made} are made now, nothing is profiled'
  ]


@pytest.mark.parametrize(('window', 'num_steps'), [('2:3', 6), ('6:9', 6), ('1:1', None)])
def test_a_window_with_a_step_is_not_told(tmp_path, caplog, window, num_steps):
  profile = profiling.StepProfile(window, epath.Path(tmp_path), num_steps)
  profile.begin(1, None)
  profile.close()
  assert not caplog.records


def test_a_profile_ends_with_its_window(tmp_path):
  profile = profiling.StepProfile('2:2', epath.Path(tmp_path))
  state = jnp.ones(3)
  for step in (1, 2):
    profile.begin(step, state)
    assert not (tmp_path / 'profile').exists()
    state = jax.jit(lambda x: x + 1)(state)
  profile.begin(3, state)
  assert marks(tmp_path)[0] == [2]
  profile.close()
  profile.begin(7, state)
  profile.close()
  assert len(list(tmp_path.rglob('*.xplane.pb'))) == 1


@pytest.mark.parametrize(('window', 'process'), [('', 0), ('1:2', 1)])
def test_no_profile(tmp_path, monkeypatch, window, process):
  monkeypatch.setattr(jax, 'process_index', lambda: process)
  profile = profiling.StepProfile(window, epath.Path(tmp_path))
  profile.begin(1, None)
  profile.close()
  assert not list(tmp_path.iterdir())
