"""Time and memory of a two-turn rollout and of an update, as batch, length and model grow.

    python benchmarks/scaling.py --preset smollm2_135m,smollm2_360m --batch 8,16,32 --length 256,512

One list grows at a time, the others stay at their first entry. A row of `length` slots is a quarter
prompt, an instruction, and two turns that share the rest; random weights hardly ever end a turn, so
budgets are used up. Memory is the compiler's figure of the largest program, in GiB: temporary, and
all with arguments and results; a rollout's has the parameters too, which are kept beside those that
decoding reads.
"""

import argparse
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from common import (
  GIB,
  make_parser,
  median_s,
  numbers,
  print_heading,
  print_row,
  program_memory,
  random_params,
  sizes_of,
)
from updates import make_batch, make_update

from score_jax.core.sharding import make_mesh
from score_jax.model.decode_params import decoding_params
from score_jax.model.decoder import Decoder
from score_jax.model.decoder_config import DecoderConfig
from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.multi_turn import rollout
from score_jax.rollout.programs import lower_programs
from score_jax.rollout.sizes import Sizes

INSTRUCTION_TOKENS = 4


def points(names: list[str], batches: list[int], lengths: list[int]) -> list[tuple]:
  """(preset, rows, slots) with one of the lists growing at a time; the first point once."""
  found = [(name, batches[0], lengths[0]) for name in names]
  found += [(names[0], rows, lengths[0]) for rows in batches[1:]]
  return found + [(names[0], batches[0], length) for length in lengths[1:]]


def rollout_costs(config: DecoderConfig, rows: int, length: int, repeats: int) -> list[float]:
  """Seconds, sampled tokens per second, temporary GiB, all GiB."""
  prompt = length // 4
  turn = (length - prompt - 1 - INSTRUCTION_TOKENS) // 2
  spec = RolloutSpec(prompt, (turn, turn), ((1,) * INSTRUCTION_TOKENS,), (0,))
  decoder = Decoder(config)
  params = random_params(dataclasses.replace(config, param_dtype=config.dtype))
  ids = np.random.default_rng(0).integers(config.vocab_size, size=(rows, prompt))
  prompts = jnp.asarray(ids, jnp.int32)
  keys = episode_keys(0, 0, np.arange(rows), np.zeros(rows, np.int32))
  arguments = (decoder, spec, params, prompts, jnp.ones(prompts.shape, bool), keys)
  mesh = make_mesh((1, 1, 1), jax.devices()[:1])
  with jax.sharding.set_mesh(mesh):
    lowered = lower_programs(decoder, spec, params, Sizes.of(spec, rows), mesh)
  programs = [program_memory(x.compile()) for x in lowered.values()]
  temporary, everything = zip(*programs, strict=True)
  prepared = program_memory(decoding_params.lower(decoder, params).compile())[1]
  kept = sum(x.nbytes for x in jax.tree.leaves(params))
  memory = [max(temporary) / GIB, max(prepared, kept + max(everything)) / GIB]
  seconds = median_s(lambda: rollout(*arguments, 1.0), repeats)
  sampled = int(jax.device_get(rollout(*arguments, 1.0).is_sampled).sum())
  return [seconds, sampled / seconds, *memory]


def update_costs(
  config: DecoderConfig, rows: int, length: int, flags: argparse.Namespace
) -> list[float]:
  """Seconds, tokens per second, temporary GiB, all GiB."""
  update = make_update(config, make_batch(config, rows, length, length // 4), flags.chunk)
  seconds = median_s(update, flags.repeats)
  memory = [size / GIB for size in program_memory(update.program)]
  return [seconds, rows * length / seconds, *memory]


def main() -> None:
  """Reads the command line, measures, prints."""
  parser = make_parser(__doc__)
  parser.add_argument('--preset', default='smollm2_135m,smollm2_360m', help='such as A,B')
  parser.add_argument('--batch', type=numbers, default=[8, 16, 32], help='rows, such as 8,16')
  parser.add_argument('--length', type=numbers, default=[256, 512, 1024], help='such as 256,512')
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--remat', default='none', help="'none', 'dots' or 'block'")
  parser.add_argument('--chunk', type=int, default=128)
  flags = parser.parse_args()
  names = flags.preset.split(',')
  if flags.tiny:
    names, flags.batch, flags.length, flags.repeats = ['tiny'], [2], [24], 2
  shape = f'{flags.dtype}; remat {flags.remat}; chunks of {flags.chunk}'
  print_heading('Time and memory', flags, shape)
  kinds = ('s', 'tokens/s', 'temporary', 'all')
  header = ['model', 'batch', 'length', *(f'rollout {kind}' for kind in kinds)]
  print_row([*header, *(f'update {kind}' for kind in kinds)], is_header=True)
  for name, rows, length in points(names, flags.batch, flags.length):
    config = sizes_of(flags, name, remat=flags.remat)
    costs = rollout_costs(config, rows, length, flags.repeats)
    print_row([name, rows, length, *costs, *update_costs(config, rows, length, flags)])


if __name__ == '__main__':
  main()
