"""What a step takes of the hardware: rates and memory in the metrics, and a profile.

`config.profile='3:5'` profiles steps 3 to 5 into WORKDIR/profile, which TensorBoard's profile
plugin (XProf) opens: `tensorboard --logdir=WORKDIR`. Steps are marked there, and on the host the
phases `rollout`, `grade` and `update`; the update's own time is on the device's lines, for the host
only hands it over.
"""

import logging
import pathlib
import resource
import shutil
import sys
import tempfile
from collections.abc import Mapping

import jax
from etils import epath

from score_jax.core.config_check import profile_steps
from score_jax.core.types import Episode
from score_jax.model.decoder_config import DecoderConfig
from score_jax.model.flops import peak_of_all_devices, sampling_flops, update_flops
from score_jax.runs.files import write_atomic

DIRECTORY = 'profile'


class StepProfile:
  """Profiles the steps of a window, on the first process alone; does nothing outside it.

  The profile is made on the local disk and copied when it is whole, so that the run directory may
  be in a bucket and never holds half of one.
  """

  def __init__(self, window: str, workdir: epath.Path, num_steps: int | None = None):
    """Reads the window; nothing is written yet.

    Args:
      window: `config.profile`.
      workdir: the run directory.
      num_steps: the run's, where it is known.

    Raises:
      ValueError: for a window that is none.
    """
    self._window = profile_steps(window) if jax.process_index() == 0 else None
    self._directory = workdir / DIRECTORY
    self._is_new, self._num_steps = True, num_steps
    self._local: pathlib.Path | None = None  # where the running profile goes
    self._step: jax.profiler.StepTraceAnnotation | None = None

  def begin(self, step: int, state) -> None:
    """Marks the beginning of a step, which ends with the next one or with `close`.

    Args:
      step: counted from 1.
      state: what the step before made. Where a profile begins or ends it is waited for, so that the
        device's work lies in the profile of its own step.
    """
    if self._window is None:
      return
    first, last = self._window
    if self._is_new and (step > last or first > (self._num_steps or first)):
      end = f'{self._num_steps}' if self._num_steps else 'the last'
      logging.warning(
        'config.profile=%d:%d: steps %d to %s are made now, nothing is profiled',
        *(first, last, step, end),
      )
    self._is_new = False
    is_inside = first <= step <= last
    if is_inside != (self._local is not None):
      jax.block_until_ready(state)
    self._end_step()
    if not is_inside:
      self.close()
      return
    if self._local is None:
      self._local = pathlib.Path(tempfile.mkdtemp(prefix='score_jax_profile_'))
      options = jax.profiler.ProfileOptions()
      options.python_tracer_level = 0  # every Python call: slow, and larger than all the rest
      jax.profiler.start_trace(self._local, profiler_options=options)
    self._step = jax.profiler.StepTraceAnnotation('train', step_num=step)
    self._step.__enter__()

  def close(self) -> None:
    """Writes the profile if one is running: at the window's end, or where a run ends inside it."""
    self._end_step()
    if self._local is None:
      return
    local, self._local = self._local, None
    try:
      jax.profiler.stop_trace()
      for path in sorted(local.rglob('*')):
        if path.is_file():
          write_atomic(self._directory / path.relative_to(local), path.read_bytes())
    finally:
      shutil.rmtree(local)

  def _end_step(self) -> None:
    if self._step is not None:
      self._step.__exit__(None, None, None)
      self._step = None


def step_rates(
  sizes: DecoderConfig,
  episode: Episode,
  prompt_tokens: int,
  samples_per_problem: int,
  has_adapters: bool,
  seconds: float,
) -> dict[str, float]:
  """Tokens and operations per second of a step, and what of the devices' peak that is.

  Args:
    sizes: of the decoder.
    episode: this process's rows, on the host; the other processes' count as much.
    prompt_tokens: slots of the prompt.
    samples_per_problem: G.
    has_adapters: whether adapters are trained, not the weights.
    seconds: that the whole step took.

  Returns:
    Numbers by metric key; see docs/metrics.md. `time/mfu` is there only where the peak is known.
  """
  lengths_B = episode.is_token.sum(axis=1)
  prompts_B = episode.is_token[:, :prompt_tokens].sum(axis=1)
  sampled = float(episode.is_sampled.sum())
  flops = update_flops(sizes, lengths_B, sampled, has_adapters)
  flops += sampling_flops(sizes, lengths_B, prompts_B, sampled, samples_per_problem)
  per_s = jax.process_count() / seconds
  rates = {
    'time/sampled_tokens_per_s': sampled * per_s,
    'time/trained_tokens_per_s': float(lengths_B.sum()) * per_s,
    'time/model_flops_per_s': flops * per_s,
  }
  peak = peak_of_all_devices()
  return rates if peak is None else rates | {'time/mfu': flops * per_s / peak}


def peak_memory() -> dict[str, float]:
  """The most memory that this process has taken so far.

  Returns:
    Bytes by metric key: `device/peak_bytes`, of the local device that took most, where the backend
    counts them (a CPU does not), and `host/peak_bytes`, resident, of the process itself.
  """
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  peaks = [s['peak_bytes_in_use'] for s in stats if 'peak_bytes_in_use' in s]
  unit = 1 if sys.platform == 'darwin' else 1024
  host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
  found = {'host/peak_bytes': float(host)}
  return found | {'device/peak_bytes': float(max(peaks))} if peaks else found


def postfix(values: Mapping[str, float]) -> str:
  """What the progress bar says of a step's rates.

  Args:
    values: the step's metrics.

  Returns:
    A few words.

  Example:
    >>> rates = {'time/sampled_tokens_per_s': 1234.5, 'time/mfu': 0.314, 'host/peak_bytes': 2e9}
    >>> postfix(rates)
    'tokens/s=1234 mfu=0.31 peak=2.0GB'
  """
  words = [f'tokens/s={values["time/sampled_tokens_per_s"]:.0f}']
  if 'time/mfu' in values:
    words.append(f'mfu={values["time/mfu"]:.2f}')
  peak = values.get('device/peak_bytes', values['host/peak_bytes'])
  return ' '.join([*words, f'peak={peak / 1e9:.1f}GB'])
