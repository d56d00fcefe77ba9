"""Low-rank adapters (LoRA): y = x W + (x A) B * alpha / rank, with W frozen.

The adapters of a weight are two more leaves of the parameter tree, 'q_a' and 'q_b' beside 'q'.
`join` puts them there without a copy of the weights, and sampler, scorer and evaluation take the
tree like any other; what is trained and saved is the adapters alone.
"""

import dataclasses
import math
from collections.abc import Iterator

import jax
import numpy as np

from score_jax.core.paths import Path, leaf_path, nest
from score_jax.model.decoder import abstract_params
from score_jax.model.decoder_config import DecoderConfig

# Of each weight that can be adapted: its module, and how many of its axes (after the layers') are
# read by the input. The rest are the output's.
TARGETS = {
  'q': ('attn', 1),
  'k': ('attn', 1),
  'v': ('attn', 1),
  'o': ('attn', 2),
  'gate': ('mlp', 1),
  'up': ('mlp', 1),
  'down': ('mlp', 1),
}


@dataclasses.dataclass(frozen=True)
class Lora:
  """Which weights get adapters, and of what size.

  Attributes:
    rank: r, columns of A and rows of B.
    alpha: what the adapters add is multiplied by alpha / rank.
    targets: names of `TARGETS`; kept in their order there.
  """

  rank: int
  alpha: float
  targets: tuple[str, ...]

  def __post_init__(self):
    is_known = set(self.targets) <= TARGETS.keys() and len(set(self.targets)) == len(self.targets)
    if not is_known or not self.targets:
      raise ValueError(
        f'config.lora.targets={", ".join(self.targets)} must be some of {", ".join(TARGETS)}, each '
        'once'
      )
    # The same adapters compare equal.
    object.__setattr__(self, 'targets', tuple(name for name in TARGETS if name in self.targets))
    if self.rank < 1 or self.alpha <= 0:
      raise ValueError(
        f'config.lora.rank={self.rank} must be at least 1, config.lora.alpha={self.alpha} above 0'
      )

  @property
  def scale(self) -> float:
    """What (x A) B is multiplied by."""
    return self.alpha / self.rank


def abstract_adapters(config: DecoderConfig, lora: Lora) -> tuple[dict, dict]:
  """Shapes and logical axes of the adapters, as `abstract_params` gives those of the weights.

  Args:
    config: the sizes.
    lora: targets and rank.

  Returns:
    A tree of f32 jax.ShapeDtypeStruct, A as [L, inputs..., r] and B as [L, r, outputs...]; and a
    tree of the same form with tuples of axis names.
  """
  shapes, axes = abstract_params(config)
  found_shapes, found_axes = {}, {}
  for name in lora.targets:
    module, num_inputs = TARGETS[name]
    shape, names = shapes['layers'][module][name].shape, axes['layers'][module][name]
    split = 1 + num_inputs
    a, b = ('layers', module, f'{name}_a'), ('layers', module, f'{name}_b')
    found_shapes[a] = jax.ShapeDtypeStruct((*shape[:split], lora.rank), np.float32)
    found_shapes[b] = jax.ShapeDtypeStruct((shape[0], lora.rank, *shape[split:]), np.float32)
    found_axes[a] = (*names[:split], None)
    found_axes[b] = (names[0], None, *names[split:])
  return nest(found_shapes.items()), nest(found_axes.items())


def iter_first_adapters(
  config: DecoderConfig, lora: Lora, seed: int
) -> Iterator[tuple[Path, np.ndarray]]:
  """Draws adapters that change nothing yet: B is 0, A is uniform in 1 / sqrt(inputs) around 0.

  Args:
    config: the sizes.
    lora: targets and rank.
    seed: the run's; the same adapters on every mesh and process.

  Yields:
    (path, f32 array) of each.

  Source: arXiv:2106.09685; the distribution of A is that of Hugging Face's PEFT.
  """
  rng = np.random.default_rng((seed, lora.rank))
  for keys, leaf in jax.tree_util.tree_flatten_with_path(abstract_adapters(config, lora)[0])[0]:
    path = leaf_path(keys)
    if path[-1].endswith('_b'):
      yield path, np.zeros(leaf.shape, np.float32)
    else:
      limit = math.prod(leaf.shape[1:-1]) ** -0.5
      yield path, rng.uniform(-limit, limit, leaf.shape).astype(np.float32)


def policy_params(params: dict, trained: dict, lora: Lora | None) -> dict:
  """The parameters that the decoder takes: what is trained, or that beside the base model's."""
  return trained if lora is None else join(params, trained, lora)


def join(params: dict, adapters: dict, lora: Lora) -> dict:
  """The parameters of the adapted model; the weights are the same arrays, not copies.

  Args:
    params: of the base model.
    adapters: of the form of `abstract_adapters`.
    lora: gives the scale, which goes into B.

  Returns:
    A tree for `Decoder`.
  """
  scaled = {
    module: {k: x * lora.scale if k.endswith('_b') else x for k, x in pairs.items()}
    for module, pairs in adapters['layers'].items()
  }
  return put_beside(params, {'layers': scaled})


def put_beside(params: dict, adapters: dict) -> dict:
  """One tree of both, as they are: for shapes, which cannot be scaled."""
  layers = dict(params['layers'])
  for module, pairs in adapters['layers'].items():
    layers[module] = {**layers[module], **pairs}
  return {**params, 'layers': layers}


def merge(params: dict, adapters: dict, lora: Lora) -> dict:
  """One set of weights that computes what the adapted model does: W + A B * alpha / rank.

  Args:
    params: of the base model; NumPy arrays or those of jax.
    adapters: of the form of `abstract_adapters`, of the same kind.
    lora: the targets and the scale.

  Returns:
    Parameters of the base model's form, f32 where adapters were added.
  """
  layers = dict(params['layers'])
  for name in lora.targets:
    module = TARGETS[name][0]
    w, a, b = (layers[module][name], *(adapters['layers'][module][f'{name}_{x}'] for x in 'ab'))
    L, r = b.shape[:2]
    product = a.reshape(L, -1, r) @ b.reshape(L, r, -1)
    merged = w.astype(np.float32) + lora.scale * product.reshape(w.shape)
    layers[module] = {**layers[module], name: merged}
  return {**params, 'layers': layers}
