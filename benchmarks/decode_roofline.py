"""Decoding against what the device's memory and arithmetic allow.

    python benchmarks/decode_roofline.py --preset qwen2_5_1_5b --batch 1,16,64 --dtype bfloat16

Random weights sample one turn that no row ends, at temperature 1. Decode seconds are those of
`turn_tokens` tokens less those of one, so that the prefill falls out. The roofline adds up, over
the tokens, the larger of bytes over bandwidth (every weight once, every row's filled cache) and
FLOPs over peak, both measured here; sampling itself, what is written and the embedding's rows count
nothing. The peak is that of large square matrices; what this model's own products take, one after
the other with nothing between them, is measured too.
"""

import jax
import jax.numpy as jnp
import numpy as np
from common import (
  ceilings,
  make_parser,
  median_s,
  numbers,
  print_heading,
  print_row,
  random_params,
  sizes_of,
)

from score_jax.model import flops
from score_jax.model.decode_params import decoding_params
from score_jax.model.decoder import Decoder
from score_jax.model.decoder_config import DecoderConfig
from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.multi_turn import rollout


def token_costs(config: DecoderConfig, rows: int, position: int) -> tuple[float, float]:
  """(bytes, FLOPs) that one token of each row needs, at a position counted from 0."""
  seen = flops.seen_pairs(config, [position + 1]) - flops.seen_pairs(config, [position])
  size = jnp.dtype(config.dtype).itemsize
  cache = rows * seen * 2 * config.num_kv_heads * config.head_dim
  weights = sum(flops.matmul_weights(config))
  return size * (weights + cache), flops.forward_flops(config, rows, rows, rows * seen)


def sample_s(config: DecoderConfig, params: dict, rows: int, prompt: int, turn: int, repeats: int):
  """Seconds of a rollout of one turn that uses its whole budget."""
  # No token has this id.
  spec = RolloutSpec(prompt, (turn,), (), (config.vocab_size,))
  ids = np.random.default_rng(0).integers(config.vocab_size, size=(rows, prompt))
  prompts = jnp.asarray(ids, jnp.int32)
  keys = episode_keys(0, 0, np.arange(rows), np.zeros(rows, np.int32))
  is_prompt = jnp.ones(prompts.shape, bool)
  decoder = Decoder(config)
  return median_s(lambda: rollout(decoder, spec, params, prompts, is_prompt, keys, 1.0), repeats)


def products_s(config: DecoderConfig, params: dict, rows: int, steps: int, repeats: int) -> float:
  """Seconds of the products of tokens with weights alone: no attention, norm or sampling."""
  c, params = config, decoding_params(Decoder(config), params)
  D, queries = c.embed_dim, c.num_heads * c.head_dim

  def token(params, x_BD):
    for i in range(c.num_layers):
      attn, mlp = params[f'layer_{i}']['attn'], params[f'layer_{i}']['mlp']
      q, k, v = (x_BD @ attn[name].reshape(D, -1) for name in 'qkv')
      # Each product needs the one before; all of k, v and the logits must be made.
      x_BD = q @ attn['o'].reshape(queries, D) + (k + v).sum(axis=1, keepdims=True)
      x_BD = ((x_BD @ mlp['gate']) * (x_BD @ mlp['up'])) @ mlp['down']
      x_BD /= 1 + jnp.abs(x_BD).max()  # stays finite
    head = params['embedder']['embedding'].T if c.tie_embeddings else params['head']['kernel']
    return x_BD + (x_BD @ head).max(axis=1, keepdims=True)

  @jax.jit
  def run(params, x_BD):
    return jax.lax.fori_loop(0, steps, lambda _, x_BD: token(params, x_BD), x_BD)

  x_BD = jax.random.normal(jax.random.key(0), (rows, D)).astype(c.dtype)
  return median_s(lambda: run(params, x_BD), repeats)


def main() -> None:
  """Reads the command line, measures, prints."""
  parser = make_parser(__doc__)
  parser.add_argument('--preset', default='smollm2_135m')
  parser.add_argument('--batch', type=numbers, default=[1, 16, 64], help='rows, such as 1,16,64')
  parser.add_argument('--prompt_tokens', type=int, default=64)
  parser.add_argument('--turn_tokens', type=int, default=128)
  parser.add_argument('--dtype', default='float32')
  flags = parser.parse_args()
  if flags.tiny:
    flags.batch, flags.prompt_tokens, flags.turn_tokens, flags.repeats = [2], 4, 257, 5
  config = sizes_of(flags, flags.preset, param_dtype=flags.dtype)
  bandwidth, peak, note = ceilings(flags)
  prompt, steps = flags.prompt_tokens, flags.turn_tokens - 1
  shape = f'prompt {prompt}, turn {flags.turn_tokens}, {flags.dtype}'
  name = 'the tiny model' if flags.tiny else flags.preset
  print_heading(f'Decoding, {name}', flags, shape, note)
  header = ['batch', 'tokens/s', 'ms per token of all rows', 'its products alone, ms']
  header += ['roofline, ms', 'bound by', 'share of the roofline']
  print_row(header, is_header=True)
  params = random_params(config)
  for rows in flags.batch:
    arguments = (config, params, rows, prompt)
    seconds = sample_s(*arguments, flags.turn_tokens, flags.repeats)
    seconds -= sample_s(*arguments, 1, flags.repeats)
    costs = [token_costs(config, rows, prompt + i) for i in range(1, flags.turn_tokens)]
    by_bytes = [num_bytes / bandwidth for num_bytes, _ in costs]
    by_flops = [num_flops / peak for _, num_flops in costs]
    roofline = sum(map(max, by_bytes, by_flops))
    bound = 'bytes' if sum(by_bytes) > sum(by_flops) else 'FLOPs'
    products = products_s(config, params, rows, steps, flags.repeats)
    per_token = [1e3 * x / steps for x in (seconds, products, roofline)]
    print_row([rows, rows * steps / seconds, *per_token, bound, roofline / seconds])


if __name__ == '__main__':
  main()
