"""A process that rolls out with google/tunix's sampler when told to, for `tunix_rollout.py`.

It runs in an environment of its own and knows nothing of score_jax: numpy, jax, and Tunix alone.
Weights come in a file, as score_jax names them, and are renamed here (`tunix_arrays`).

What Tunix is given:

- Its Llama model, or its Qwen 2 model where queries, keys and values have a bias; both tie the
  head to the embedding and keep their parameters in the type that is measured.
- A sampler for each turn, on the same weights, each with a cache of just what the turn needs, and
  `max_prompt_length` of the longest prompt, or a little more where prompts differ (`PAD`): so
  nothing is padded to a power of two. Greedy, without log-probabilities, which `score_jax` always
  gives. Everything else as it comes.
- Token ids: its sampler takes strings, so a prompt's string is looked up in a table, and an answer
  is not turned into text.
- Only `tunix.generate` and `tunix.models`. The package itself would import its trainers,
  TensorFlow Datasets and transformers too, which is memory that sampling does not need.
"""

import importlib.metadata
import importlib.util
import sys
import time
import types
from collections.abc import Iterator

import numpy as np
import sides

# Prompts are padded to a multiple of it: each length that is new is compiled anew.
PAD = 64
NO_TOKEN = -1  # Tunix masks what equals its pad id; this is no token's id
_OF_LAYER = {
  'attn_norm/scale': 'input_layernorm.w',
  'mlp_norm/scale': 'post_attention_layernorm.w',
  **{f'attn/{x}': f'attn.{x}_proj.w' for x in 'qkvo'},
  **{f'attn/{x}_bias': f'attn.{x}_bias' for x in 'qkv'},
  **{f'mlp/{x}': f'mlp.{x}_proj.kernel' for x in ('gate', 'up', 'down')},
}


def tunix_arrays(name: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
  """Names one array of score_jax as Tunix does: layers apart, biases flat.

  Args:
    name: path of the parameter, joined by '/'.
    array: its values, layers stacked on the first axis.

  Yields:
    Tunix's path, joined by '.', and the values.

  Raises:
    ValueError: for a parameter that Tunix's Llama and Qwen 2 models do not have.
  """
  if name == 'embedder/embedding':
    yield 'embedder.input_embedding', array
  elif name == 'final_norm/scale':
    yield 'final_norm.w', array
  elif name.removeprefix('layers/') in _OF_LAYER:
    theirs = _OF_LAYER[name.removeprefix('layers/')]
    for i, layer in enumerate(array):
      yield f'layers.{i}.{theirs}', layer.reshape(-1) if theirs.endswith('_bias') else layer
  else:
    raise ValueError(f"{name} of shape {array.shape} has no place in Tunix's Llama and Qwen 2")


class _Numbers:
  """The tokenizer that Tunix is given: a prompt's string is its row's number."""

  def __init__(self):
    self.prompts = []

  def encode(self, text):
    return self.prompts[int(text)]

  def decode(self, ids):
    del ids
    return ''

  def bos_id(self):
    return None

  def eos_id(self):
    raise AssertionError('the end of a turn is named in every call')

  def pad_id(self):
    return NO_TOKEN


class TunixSide:
  """Tunix's sampler behind `serve`."""

  def about(self) -> dict:
    """See `sides.about`."""
    return sides.about(f'google-tunix {importlib.metadata.version("google-tunix")}')

  def load(self, path: str, dtype: str, sizes: dict, turns: list[list[int]]) -> dict:
    """Builds the model and a sampler for each turn.

    Args:
      path: the weights, see `sides.read_arrays`.
      dtype: of the weights, and so of everything.
      sizes: the fields of score_jax's DecoderConfig.
      turns: of each turn, the tokens before it and its budget.

    Returns:
      {'model': the class that Tunix has for it}.
    """
    # A package that is not run: see the file's docstring.
    package = types.ModuleType('tunix')
    package.__path__ = list(importlib.util.find_spec('tunix').submodule_search_locations)
    sys.modules['tunix'] = package
    from tunix.generate.sampler import CacheConfig, Sampler

    model = self._model(path, dtype, sizes)
    self.tokenizer, self.clock = _Numbers(), sides.CompileClock()
    self.budgets = [budget for _, budget in turns]
    cache = [sizes[name] for name in ('num_layers', 'num_kv_heads', 'head_dim')]
    self.samplers = [
      Sampler(model, self.tokenizer, CacheConfig(before + budget, *cache))
      for before, budget in turns
    ]
    return {'model': type(model).__name__}

  def _model(self, path, dtype, sizes):
    import jax.numpy as jnp
    from flax import nnx, traverse_util

    names = ('num_layers', 'vocab_size', 'embed_dim', 'num_heads', 'num_kv_heads', 'head_dim')
    fields = {name: sizes[name] for name in (*names, 'norm_eps')}
    fields |= {'hidden_dim': sizes['mlp_dim'], 'rope_theta': sizes['rope_base']}
    if sizes['qkv_bias']:
      from tunix.models.qwen2.model import ModelConfig, Qwen2

      of_type = {'dtype': jnp.dtype(dtype), 'param_dtype': jnp.dtype(dtype)}
      make, config = Qwen2, ModelConfig(**fields, **of_type, use_tied_embedding=True)
    else:
      from tunix.models.llama3.model import Llama3, ModelConfig

      make, config = Llama3, ModelConfig(**fields, weight_tying=True)
    graph, state = nnx.split(nnx.eval_shape(lambda: make(config, rngs=nnx.Rngs(0))))
    places = traverse_util.flatten_dict(nnx.to_pure_dict(state))
    places = {'.'.join(map(str, keys)): (keys, place.shape) for keys, place in places.items()}
    values = {}
    for name, array in sides.read_arrays(path, dtype):
      for theirs, value in tunix_arrays(name, array):
        keys, shape = places.pop(theirs)
        if value.shape != shape:
          raise ValueError(f'{name} of shape {value.shape}, but {theirs} of {shape} in Tunix')
        values[keys] = jnp.array(value)
    if places:
      raise ValueError(f'{path} lacks what Tunix calls {sorted(places)}')
    nnx.replace_by_pure_dict(state, traverse_util.unflatten_dict(values))
    return nnx.merge(graph, state)

  def rollout(
    self,
    prompts: list[list[int]],
    samples: int,
    instruction: list[int],
    end: int,
    lengths: list[list[int]] | None = None,
    slots: int | None = None,
  ) -> dict:
    """Samples the turns; each begins with all tokens so far, then the instruction.

    Rows cannot be ended here one by one, so with `lengths` each turn runs to the longest one of its
    batch, as it would if its last row ended there; what a row has beyond its own is thrown away.

    Args:
      prompts: ids.
      samples: so many rows in a row are of the same prompt.
      instruction: ids between two turns, the end of turn that a cut answer needs included.
      end: the id that would end a turn.
      lengths: of each turn, the tokens of each row's answer; None for all of the budget.
      slots: rows of a batch; None for all.

    Returns:
      {'tokens': of each turn, each row's ids, 'seconds' without those of the compiler, 'decoded':
      rows times the tokens that their batch sampled, 'peak_bytes'}.
    """
    contexts = [list(prompt) for prompt in prompts for _ in range(samples)]
    tokens, decoded = [[] for _ in self.samplers], 0
    sides.reset_peak()
    start_s, compiled_s = time.perf_counter(), self.clock.seconds
    for first in range(0, len(contexts), slots or len(contexts)):
      batch = contexts[first : first + (slots or len(contexts))]
      for turn, sampler in enumerate(self.samplers):
        of_row = [self.budgets[turn]] * len(contexts) if lengths is None else lengths[turn]
        of_row = of_row[first : first + len(batch)]
        if turn:
          batch = [row + tokens[turn - 1][first + i] + instruction for i, row in enumerate(batch)]
        self.tokenizer.prompts = batch
        room = sampler.cache_config.cache_size - max(of_row)
        longest = min(-(-max(map(len, batch)) // PAD) * PAD, room)
        rows = [str(i) for i in range(len(batch))]
        out = sampler(rows, max(of_row), max_prompt_length=longest, eos_tokens=[end])
        ids = [row.tolist()[:n] for row, n in zip(out.tokens, of_row, strict=True)]
        tokens[turn] += ids
        decoded += len(batch) * max(of_row)
    seconds = time.perf_counter() - start_s - (self.clock.seconds - compiled_s)
    measured = {'seconds': seconds, 'decoded': decoded, 'peak_bytes': sides.peak_bytes()}
    return {'tokens': tokens, **measured}


def main() -> None:
  """Serves until stdin ends."""
  side = TunixSide()
  sides.serve({'about': side.about, 'load': side.load, 'rollout': side.rollout})


if __name__ == '__main__':
  main()
