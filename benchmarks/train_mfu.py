"""The update against the device's own matrix products: model FLOPs utilisation.

    python benchmarks/train_mfu.py --preset qwen2_5_1_5b --batch 4,8 --length 1024 --dtype bfloat16

Full rows of random tokens, float32 weights with Adam, the reference beside them in the type that
is computed in. FLOPs are those of `score_jax.model.flops.update_flops`: what the mathematics needs,
so that layers computed anew (--remat) count nothing.
"""

from common import (
  GIB,
  ceilings,
  make_parser,
  median_s,
  numbers,
  print_heading,
  print_row,
  program_memory,
  sizes_of,
)
from updates import make_batch, make_update

from score_jax.model.flops import update_flops


def main() -> None:
  """Reads the command line, measures, prints."""
  parser = make_parser(__doc__)
  parser.add_argument('--preset', default='smollm2_135m')
  parser.add_argument('--batch', type=numbers, default=[4, 8], help='rows, such as 4,8,16')
  parser.add_argument('--length', type=int, default=1024)
  parser.add_argument('--prompt_tokens', type=int, default=64)
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--remat', default='none', help="'none', 'dots' or 'block'")
  parser.add_argument('--scan_unroll', type=int, default=1)
  parser.add_argument('--micro_batches', type=int, default=1)
  parser.add_argument('--chunk', type=int, default=128)
  flags = parser.parse_args()
  if flags.tiny:
    flags.batch, flags.length, flags.prompt_tokens, flags.repeats = [2], 16, 4, 2
  config = sizes_of(flags, flags.preset, remat=flags.remat, scan_unroll=flags.scan_unroll)
  _, peak, note = ceilings(flags)
  shape = (
    f'rows of {flags.length} tokens, {flags.prompt_tokens} of them the prompt; {flags.dtype}; '
    f'remat {flags.remat}; {flags.micro_batches} micro-batches; chunks of {flags.chunk}'
  )
  name = 'the tiny model' if flags.tiny else flags.preset
  print_heading(f'Update, {name}', flags, shape, note)
  header = ['batch', 'seconds', 'tokens/s', 'model TFLOP/s', 'MFU, of the measured product']
  print_row([*header, 'temporary, GiB', 'all, GiB (compiler)'], is_header=True)
  for rows in flags.batch:
    batch = make_batch(config, rows, flags.length, flags.prompt_tokens, flags.micro_batches)
    update = make_update(config, batch, flags.chunk)
    seconds = median_s(update, flags.repeats)
    sampled = int(batch.rows.is_sampled.sum())
    rate = update_flops(config, [flags.length] * rows, sampled) / seconds
    memory = [size / GIB for size in program_memory(update.program)]
    print_row([rows, seconds, rows * flags.length / seconds, rate / 1e12, rate / peak, *memory])
    del update  # before the next one's weights are made


if __name__ == '__main__':
  main()
