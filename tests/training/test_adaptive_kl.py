"""KL weights that follow a target: part of what is trained, saved and logged."""

import dataclasses
import runpy

import jax
import numpy as np

from score_jax.objective import stages
from score_jax.runs.metrics import read_metrics
from score_jax.setup import run as setup_run
from score_jax.training import train


def test_kl_weight_follows_its_target(tiny_run, tmp_path):
  """A weight that follows a target is part of the state: saved, restored, and told in the log."""

  def config_of(num_steps):
    config = runpy.run_path(str(tiny_run))['get_config']()
    config.stage.update(dataclasses.asdict(stages.stage1(0.01, 0.5)))
    config.stage.kl_target_nats = (1e-4, 0.0)
    config.train.num_steps, config.train.checkpoint_every_steps = num_steps, 1
    return config

  def trained(num_steps, folder):
    setup = setup_run.prepare(config_of(num_steps))
    state = train.train(setup, folder)
    setup.task.close()
    return jax.device_get(state)

  whole = trained(4, tmp_path / 'whole')
  trained(2, tmp_path / 'parts')
  parts = trained(4, tmp_path / 'parts')
  jax.tree.map(np.testing.assert_array_equal, whole, parts)
  log = read_metrics(tmp_path / 'whole')
  scale = np.float32(1.0)
  for record in log:
    np.testing.assert_allclose(record['train/kl_weight_t1'], 0.5 * scale, rtol=1e-6)
    np.testing.assert_allclose(record['train/kl_weight_t2'], 0.01, rtol=1e-6)
    scale *= 1 + np.clip(record['train/kl_t1_nats'] / 1e-4 - 1, -0.2, 0.2)
  np.testing.assert_allclose(whole.kl_scale, [scale, 1.0], rtol=1e-6)
  assert whole.kl_scale[0] != 1.0
