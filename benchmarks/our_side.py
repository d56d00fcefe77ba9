"""A process that rolls out with score_jax when told to, for `tunix_rollout.py`."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import sides
from flax import traverse_util

import score_jax
from score_jax.model.decoder import Decoder, init_params
from score_jax.model.decoder_config import DecoderConfig
from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.multi_turn import rollout


class OurSide:
  """Our sampler behind `sides.serve`."""

  def about(self) -> dict:
    """See `sides.about`."""
    return sides.about(f'score_jax {score_jax.__version__}')

  def draw(self, path: str, sizes: dict, end: int) -> dict:
    """Writes random weights, biases and norms among them, so that each can be told from none.

    Args:
      path: of the .npz.
      sizes: the fields of DecoderConfig.
      end: the token whose embedding is zero.

    Returns:
      {'bytes': of all weights}.
    """
    config = DecoderConfig(**sizes)
    params = jax.jit(init_params, static_argnums=0)(config, jax.random.key(0))
    rng, arrays = np.random.default_rng(0), {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
      name, array = '/'.join(key.key for key in keys), np.array(leaf)
      if name.endswith(('scale', '_bias')):
        array += rng.normal(0, 0.1, array.shape).astype(array.dtype)
      elif name == 'embedder/embedding':
        array[end] = 0
      arrays[name] = array.view(np.uint16) if config.param_dtype == 'bfloat16' else array
    np.savez(path, **arrays)
    return {'bytes': sum(array.nbytes for array in arrays.values())}

  def load(self, path: str, dtype: str, sizes: dict, turns: list[list[int]]) -> dict:
    """Reads the weights; arguments as of `tunix_side.TunixSide.load`.

    Returns:
      {'model': the class}.
    """
    arrays = sides.read_arrays(path, dtype)
    params = {tuple(name.split('/')): jnp.array(array) for name, array in arrays}
    self.params = traverse_util.unflatten_dict(params)
    self.decoder, self.turns = Decoder(DecoderConfig(**sizes)), turns
    return {'model': type(self.decoder).__name__}

  def rollout(
    self, prompts: list[list[int]], samples: int, instruction: list[int], end: int
  ) -> dict:
    """Plays the turns; arguments and result as of `tunix_side.TunixSide.rollout`.

    Raises:
      ValueError: if the instruction does not begin with the end of turn, which a cut answer needs.
    """
    if instruction[0] != end:
      raise ValueError(f'a cut answer needs {end}, but is followed by {instruction[0]}')
    budgets = tuple(budget for _, budget in self.turns)
    followups = (tuple(instruction[1:]),) * (len(budgets) - 1)
    spec = RolloutSpec(len(prompts[0]), budgets, followups, (end,))
    prompt_BT = np.repeat(np.array(prompts, np.int32), samples, axis=0)
    rows = np.arange(len(prompt_BT))
    keys = jax.block_until_ready(episode_keys(0, 0, rows, np.zeros_like(rows)))
    sides.reset_peak()
    start_s = time.perf_counter()
    is_prompt_BT = prompt_BT >= 0
    episode = rollout(
      self.decoder,
      spec,
      self.params,
      prompt_BT,
      is_prompt_BT,
      keys,
      temperature=0.0,
      samples_per_prompt=samples,
    )
    tokens, turn, is_sampled = jax.device_get((episode.tokens, episode.turn, episode.is_sampled))
    seconds = time.perf_counter() - start_s
    ids = [
      [row[of_row].tolist() for row, of_row in zip(tokens, is_sampled & (turn == k), strict=True)]
      for k in range(1, len(budgets) + 1)
    ]
    return {'tokens': ids, 'seconds': seconds, 'peak_bytes': sides.peak_bytes()}


def main() -> None:
  """Serves until stdin ends."""
  side = OurSide()
  names = ('about', 'draw', 'load', 'rollout')
  sides.serve({name: getattr(side, name) for name in names})


if __name__ == '__main__':
  main()
