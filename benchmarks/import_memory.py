"""Measures the host memory that importing a model and sampling from it take.

    python benchmarks/import_memory.py --preset gemma2_2b --folder DIR

DIR gets a Hugging Face folder in bfloat16 of the preset's shapes, once, with values that repeat
along all axes but the last. Import and sampling then run in processes of their own. Peak: of the
whole process, Python and compiler included. Largest: of one parameter, stacked over layers.
"""

import argparse
import dataclasses
import math
import pathlib
import resource
import subprocess
import sys
import time

GB = 10**9


def make_folder(folder: pathlib.Path, preset_name: str) -> None:
  """Writes the checkpoint, a parameter at a time."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from score_jax.formats import hf_export
  from score_jax.model.decoder import abstract_params
  from score_jax.model.presets import preset

  config, rng = preset(preset_name), np.random.default_rng(0)

  def draw(x):
    row = rng.normal(0, 0.02, x.shape[-1]).astype(np.float32)
    return np.broadcast_to(row, x.shape)

  params = jax.tree.map(draw, abstract_params(config)[0])
  hf_export.write_folder(folder, config, params, jnp.bfloat16)


def measure(folder: pathlib.Path, dtype: str, param_dtype: str, num_tokens: int) -> None:
  """Imports, samples where asked to, and prints the peak."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from score_jax.core import sharding
  from score_jax.formats import hf_folder
  from score_jax.model.decoder import Decoder
  from score_jax.rollout.keys import episode_keys
  from score_jax.rollout.layout import RolloutSpec
  from score_jax.rollout.multi_turn import rollout
  from score_jax.setup.base_model import param_shardings, place_params

  start_s = time.monotonic()
  config = hf_folder.read_config(folder)
  config = dataclasses.replace(config, dtype=dtype, param_dtype=param_dtype)
  mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
  arrays = hf_folder.iter_params(folder, config, jnp.dtype(param_dtype))
  params = place_params(arrays, param_shardings(config, mesh))
  seconds = time.monotonic() - start_s
  if num_tokens:
    spec = RolloutSpec(8, (num_tokens,), (), (0,))
    prompts, row = jnp.ones((1, 8), jnp.int32), np.zeros(1, np.int32)
    keys = episode_keys(0, 0, row, row)
    jax.block_until_ready(rollout(Decoder(config), spec, params, prompts, prompts == 1, keys, 1.0))
  sizes = [math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(params)]
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  print(
    f'| {param_dtype} | {f"{num_tokens} tokens in {dtype}" if num_tokens else "nothing"} '
    f'| {sum(sizes) / GB:.2f} | {max(sizes) / GB:.2f} | {peak / GB:.2f} | {seconds:.0f} |'
  )


def main() -> None:
  """Reads the command line, makes the checkpoint, measures in processes of their own."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--preset', required=True)
  parser.add_argument('--folder', required=True, type=pathlib.Path)
  parser.add_argument('--measure', nargs=3, metavar=('DTYPE', 'PARAM_DTYPE', 'TOKENS'))
  flags = parser.parse_args()
  if flags.measure:
    dtype, param_dtype, tokens = flags.measure
    measure(flags.folder, dtype, param_dtype, int(tokens))
    return
  if not flags.folder.exists():
    make_folder(flags.folder, flags.preset)
  size = sum(path.stat().st_size for path in flags.folder.iterdir())
  print(f'{flags.preset}: {size / GB:.2f} GB on disk')
  print('| kept as | sampled | parameters, GB | largest, GB | peak, GB | import, s |')
  print('|---|---|---|---|---|---|', flush=True)
  for case in (
    ('float32', 'float32', '0'),
    ('float32', 'float32', '4'),
    ('float32', 'bfloat16', '0'),
    ('bfloat16', 'bfloat16', '4'),
  ):
    command = [sys.executable, __file__, '--preset', flags.preset, '--folder', str(flags.folder)]
    subprocess.run([*command, '--measure', *case], check=True)


if __name__ == '__main__':
  main()
