"""What a training run writes down of each step: metrics, episodes to read, a batch gone wrong."""

import io
import itertools
import time

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from score_jax.model.decoder_config import DecoderConfig
from score_jax.runs.files import write_atomic
from score_jax.runs.metrics import MetricsLog
from score_jax.runs.segments import SegmentedLog
from score_jax.training import profiling
from score_jax.training.experience import Experience


class Journal:
  """The logs of one run; see `score_jax.runs.segments` for what cut and rewind promise."""

  def __init__(self, workdir: epath.Path, config: ConfigDict, sizes: DecoderConfig):
    """Opens the logs.

    Args:
      workdir: the run directory.
      config: how often episodes are saved, and how many.
      sizes: of the decoder, for the operations of a step.
    """
    process = jax.process_index()
    self._workdir = workdir
    self._config = config
    self._sizes = sizes
    self._metrics = MetricsLog(workdir, process)
    self._episodes = SegmentedLog(workdir / 'episodes', f'process{process:04d}')
    self._last_s = time.monotonic()

  def write(
    self, step: int, values: dict[str, float], experience: Experience, done_s: float
  ) -> dict[str, float]:
    """Adds a step.

    Args:
      step: counted from 1.
      values: the update's metrics.
      experience: what it learned from.
      done_s: when the update was done, by `time.monotonic`.

    Returns:
      All that was written.
    """
    step_s, self._last_s = done_s - self._last_s, done_s
    # Shares among this process's own answers: the checker's words are not numbers to add up.
    kinds = [verdict.kind for turn in experience.verdicts for verdict in turn]
    graded = {f'train/graded_{kind}': kinds.count(kind) / len(kinds) for kind in sorted(set(kinds))}
    changed = {}
    for k, (before, now) in enumerate(itertools.pairwise(experience.finals), start=1):
      is_changed_B = [a != b for a, b in zip(before, now, strict=True)]
      changed[f'train/changed_t{k}{k + 1}'] = float(np.mean(is_changed_B))
    rollout = self._config.rollout
    rates = profiling.step_rates(
      self._sizes,
      experience.episode,
      rollout.prompt_tokens,
      rollout.samples_per_problem,
      self._config.lora.rank > 0,
      step_s,
    )
    hardware = {'time/step_s': step_s} | rates | profiling.peak_memory()
    written = values | graded | changed | experience.measured | hardware
    self._metrics.write(step, written)
    if step % self._config.train.episodes_every_steps == 0 or step == 1:
      self._write_episodes(step, experience)
    return written

  def _write_episodes(self, step: int, experience: Experience) -> None:
    count = self._config.train.num_saved_problems * self._config.rollout.samples_per_problem
    for b, problem in enumerate(experience.problems[:count]):
      self._episodes.append(
        {
          'step': step,
          'problem': problem.id,
          'question': problem.question,
          'answer': problem.answer,
          'answers': [turn[b] for turn in experience.texts],
          'finals': [turn[b] for turn in experience.finals],
          'rewards': [turn[b].reward for turn in experience.verdicts],
          'reasons': [turn[b].reason for turn in experience.verdicts],
          'truncated': experience.episode.is_truncated[b].tolist(),
        }
      )

  def keep_batch(self, step: int, experience: Experience) -> epath.Path:
    """Saves a whole batch to be looked at.

    Args:
      step: the step it belongs to.
      experience: the batch.

    Returns:
      The file, NumPy's npz.
    """
    path = self._workdir / f'stopped_batch_{step:08d}_process{jax.process_index():04d}.npz'
    arrays = {name: np.asarray(x) for name, x in vars(experience.episode).items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, reward=experience.reward_BK, **arrays)
    write_atomic(path, buffer.getvalue())
    return path

  def cut(self, step: int) -> None:
    """Closes the open segments after a step, before that step's checkpoint is saved."""
    self._metrics.cut(step)
    self._episodes.cut(step)

  def rewind(self, step: int) -> None:
    """Forgets what was written of later steps."""
    self._metrics.rewind(step)
    self._episodes.rewind(step)

  def close(self) -> None:
    """Brings the logs up to date."""
    self._metrics.close()
    self._episodes.flush()
