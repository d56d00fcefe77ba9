"""A process that rolls out and updates with score_jax when told to, for what is compared."""

import collections
import time

import jax
import jax.numpy as jnp
import numpy as np
import sides
from common import program_memory, times_of, with_best_kernel
from flax import traverse_util
from updates import make_update, ragged_episodes

import score_jax
from score_jax.model.decoder import Decoder, init_params
from score_jax.model.decoder_config import DecoderConfig
from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec, length_step
from score_jax.rollout.multi_turn import rollout
from score_jax.training.packing import pack_episodes

LENGTH_BUCKET = 64  # config.train.length_bucket's default


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
    self.clock = sides.CompileClock()
    return {'model': type(self.decoder).__name__}

  def rollout(
    self,
    prompts: list[list[int]],
    samples: int,
    instruction: list[int],
    end: int,
    lengths: list[list[int]] | None = None,
    slots: int | None = None,
  ) -> dict:
    """Samples the turns; arguments and result as of `tunix_side.TunixSide.rollout`.

    Raises:
      ValueError: if the instruction does not begin with the end of turn, which a cut answer needs.
    """
    if instruction[0] != end:
      raise ValueError(f'a cut answer needs {end}, but is followed by {instruction[0]}')
    budgets = tuple(budget for _, budget in self.turns)
    rows = [prompt for prompt in prompts for _ in range(samples)]
    followups = (tuple(instruction[1:]),) * (len(budgets) - 1)
    spec = RolloutSpec(self.turns[0][0], budgets, followups, (end,))
    prompt_BT = np.zeros((len(rows), spec.prompt_tokens), np.int32)
    is_prompt_BT = np.arange(spec.prompt_tokens) < np.array([len(row) for row in rows])[:, None]
    prompt_BT[is_prompt_BT] = np.concatenate(rows)
    index_B = np.arange(len(rows))
    keys = episode_keys(0, 0, index_B, np.zeros_like(index_B))
    counts = collections.Counter()
    sides.reset_peak()
    start_s, compiled_s = time.perf_counter(), self.clock.seconds
    episode = rollout(
      self.decoder,
      spec,
      self.params,
      prompt_BT,
      is_prompt_BT,
      keys,
      temperature=0.0,
      slots=slots,
      budgets=None if lengths is None else np.transpose(lengths),
      counts=counts,
    )
    seconds = time.perf_counter() - start_s - (self.clock.seconds - compiled_s)
    tokens = [
      [ids[of_row].tolist() for ids, of_row in zip(episode.tokens, is_turn, strict=True)]
      for is_turn in (episode.is_sampled & (episode.turn == k + 1) for k in range(len(budgets)))
    ]
    peak = sides.peak_bytes()
    return {'tokens': tokens, 'seconds': seconds, 'decoded': counts['decoded'], 'peak_bytes': peak}

  def update(
    self,
    sizes: dict,
    prompts: list[int],
    lengths: list[list[int]],
    between: int,
    slots: int,
    rows: int,
    repeats: int,
  ) -> dict:
    """Makes updates of random episodes with answers of given lengths.

    Args:
      sizes: the fields of DecoderConfig.
      prompts: tokens of each episode's prompt.
      lengths: of each turn, the tokens of each episode's answer.
      between: tokens between two answers.
      slots: of an episode with all budgets spent.
      rows: computed at a time.
      repeats: measured updates, after one that warms up.

    Returns:
      {'seconds': of each, 'tokens': real ones, 'computed': positions, 'temp_bytes': compiler's}.
    """
    config = with_best_kernel(DecoderConfig(**sizes))
    episode, reward_BK = ragged_episodes(config, prompts, lengths, between)
    longest, step = episode.tokens.shape[1], length_step(LENGTH_BUCKET, slots)
    length = min(-(-longest // step) * step, slots)
    batch = jax.tree.map(jnp.asarray, pack_episodes(episode, reward_BK, length, rows))
    update = make_update(config, batch, chunk=128)
    return {
      'seconds': times_of(update, repeats),
      'tokens': int(episode.is_token.sum()),
      'computed': int(batch.rows.is_token.any(axis=(0, 2)).sum()) * rows * length,
      'temp_bytes': program_memory(update.program)[0],
    }


def main() -> None:
  """Serves until stdin ends."""
  side = OurSide()
  names = ('about', 'draw', 'load', 'rollout', 'update')
  sides.serve({name: getattr(side, name) for name in names})


if __name__ == '__main__':
  main()
