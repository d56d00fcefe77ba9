"""What several test files make: paths, small models.

Imported as `makers`; `pythonpath` in pyproject.toml says where it lies. What needs jax imports it
late: conftest.py imports this file before it has said how jax shall be.
"""

import functools
import importlib.util
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
TESTS = ROOT / 'tests'
# What Gemma 2 and 3 do differently, all at once.
GEMMA_CHOICES = dict(
  activation='gelu_tanh',
  qk_norm=True,
  post_norms=True,
  norm_plus_one=True,
  scale_embedding=True,
  query_pre_attn_scalar=5.0,
  attn_softcap=0.5,
  logit_softcap=3.0,
  window=3,
  window_pattern=(True, True, False),
  window_rope_base=7.0,
  rope_factor=2.0,
)


def load(path):
  """The module that a Python file of the repository is, such as 'docs/make_config_page.py'."""
  spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, ROOT / path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def table_rows(text):
  """The cells of each line of the tables of a text, headings left out."""
  lines = [line for line in text.splitlines() if line.startswith('|')]
  rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
  is_rule = [set(''.join(row)) <= {'-'} for row in rows] + [False]
  return [row for i, row in enumerate(rows) if not is_rule[i] and not is_rule[i + 1]]


def tiny_decoder(**changes):
  """The config of a decoder of a few thousand parameters, no two of whose sizes are the same."""
  from score_jax.model.decoder_config import DecoderConfig

  sizes = dict(vocab_size=11, num_layers=3, embed_dim=12, mlp_dim=16, num_heads=4, num_kv_heads=2)
  return DecoderConfig(**sizes | dict(head_dim=8, rope_base=100.0) | changes)


def random_params(config, seed=0, dtype='float32'):
  """NumPy parameters of a decoder, so wide that no factor can be left out unseen."""
  import jax
  import numpy as np

  from score_jax.model.decoder import abstract_params

  rng = np.random.default_rng(seed)

  def draw(path, x):
    centre = float(path[-1].key == 'scale' and not config.norm_plus_one)
    return (centre + rng.normal(0.0, 0.4, x.shape)).astype(dtype)

  return jax.tree_util.tree_map_with_path(draw, abstract_params(config)[0])


@functools.cache
def compiled_decoder(config):
  """(params, tokens_BT, positions_BT, is_token_BT) -> (hidden_BTD, logits_BTV), compiled."""
  import jax

  from score_jax.core.logits import project
  from score_jax.model.attention import causal_mask
  from score_jax.model.decoder import Decoder

  @jax.jit
  def run(params, tokens_BT, positions_BT, is_token_BT):
    mask_BTT = causal_mask(positions_BT, positions_BT, is_token_BT)
    hidden, head, _ = Decoder(config).apply({'params': params}, tokens_BT, positions_BT, mask_BTT)
    return hidden, project(hidden, head)

  return run


def row_logits(config, params, tokens):
  """f32[T, V] logits of one row of tokens without holes."""
  import numpy as np

  tokens_BT = np.asarray(tokens, np.int32)[None]
  positions_BT = np.arange(tokens_BT.size, dtype=np.int32)[None]
  is_token_BT = np.ones(tokens_BT.shape, bool)
  return np.asarray(compiled_decoder(config)(params, tokens_BT, positions_BT, is_token_BT)[1])[0]


def counting_model(vocab_size=12):
  """A decoder, and NumPy parameters with which token v is followed by v + 1.

  One-hot embeddings, layers that add 0.
  """
  import jax
  import numpy as np

  from score_jax.model.decoder import Decoder, abstract_params

  sizes = dict(num_layers=1, embed_dim=16, mlp_dim=8, num_heads=2, num_kv_heads=1, head_dim=4)
  config = tiny_decoder(vocab_size=vocab_size, tie_embeddings=False, **sizes)
  params = jax.tree.map(lambda x: np.ones(x.shape, np.float32), abstract_params(config)[0])
  for part, name in (('attn', 'o'), ('mlp', 'down')):
    params['layers'][part][name] = np.zeros_like(params['layers'][part][name])
  params['embedder']['embedding'] = np.eye(vocab_size, 16, dtype=np.float32)
  params['head']['kernel'] = 50 * np.roll(np.eye(16, vocab_size, dtype=np.float32), 1, axis=1)
  return Decoder(config), params


class Digits:
  """A tokenizer of digits for a counting model; 9 ends a turn."""

  vocab_size, pad_id, end_of_turn_ids = 12, 0, (9,)

  def encode(self, text):
    """The digits as ids."""
    return [int(digit) for digit in text]

  prompt_ids = followup_ids = encode

  def decode(self, ids):
    """The ids as digits, ends of turn left out."""
    return ''.join(str(i) for i in ids if i not in self.end_of_turn_ids)
