"""What the benchmarks of the model share: flags, headings, timing, the device's own ceilings.

Needs jax, flax, optax, chex and numpy, and of score_jax only what runs on the device.
"""

import argparse
import dataclasses
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from score_jax.core import version
from score_jax.model.decoder import init_params
from score_jax.model.decoder_config import DecoderConfig
from score_jax.model.kernels import best_kernel
from score_jax.model.presets import preset

GIB = 2**30
TINY = DecoderConfig(64, 1, 16, 32, num_heads=2, num_kv_heads=1, head_dim=8)


def numbers(text: str) -> list[int]:
  """Reads a flag such as '8,16,32'."""
  return [int(part) for part in text.split(',')]


def make_parser(doc: str) -> argparse.ArgumentParser:
  """A parser with the flags that all have."""
  parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument('--tiny', action='store_true', help='small sizes, to see that it runs')
  parser.add_argument('--repeats', type=int, default=5, help='times that each thing is measured')
  parser.add_argument('--commit', default=version.commit(), help='where there is no .git')
  return parser


def sizes_of(flags: argparse.Namespace, name: str, **others) -> DecoderConfig:
  """A preset in the type that is computed in, or the tiny model.

  Args:
    flags: tiny and dtype are read.
    name: of the preset.
    **others: fields of the config.
  """
  if flags.dtype == 'float32':  # as `score_jax.setup.base_model.load_base` does
    jax.config.update('jax_default_matmul_precision', 'highest')
  config = dataclasses.replace(TINY if flags.tiny else preset(name), dtype=flags.dtype, **others)
  return with_best_kernel(config)


def with_best_kernel(config: DecoderConfig) -> DecoderConfig:
  """The config with the kernel that a run of this backend updates with."""
  sizes = (config.dtype, config.head_dim, config.attn_softcap)
  return dataclasses.replace(config, attention=best_kernel(jax.default_backend(), *sizes))


def hardware() -> str:
  """The devices, or the processor where they are that."""
  devices = jax.devices()
  name = devices[0].device_kind
  if devices[0].platform == 'cpu':
    info = pathlib.Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return f'{os.cpu_count()} cores of {names[0] if names else name}'
  return f'{len(devices)} x {name}'


def print_heading(title: str, flags: argparse.Namespace, *notes: str) -> None:
  """Prints what was measured, on what, of which commit; then the notes."""
  commit = flags.commit[:7] + ('-dirty' if flags.commit.endswith('-dirty') else '')
  print(f'### {title}\n')
  notes = (f'{hardware()}; jax {jax.__version__}; commit {commit}', *notes)
  print('  \n'.join(notes) + '\n', flush=True)


def print_row(cells: Sequence, is_header: bool = False) -> None:
  """Prints a line of a Markdown table as soon as it is known; numbers with three digits."""
  texts = [cell if isinstance(cell, str) else three_digits(cell) for cell in cells]
  print(f'| {" | ".join(texts)} |', flush=True)
  if is_header:
    print('|' + '---|' * len(cells), flush=True)


def three_digits(x: float) -> str:
  """A number with at least three digits and no exponent: 0.00123, 1.23, 1234."""
  if isinstance(x, int):
    return str(x)
  text = f'{x:.0f}' if abs(x) >= 100 else f'{x:#.3g}'.rstrip('.')
  return f'{x:.9f}'.rstrip('0') if 'e' in text else text


def times_of(call: Callable, repeats: int) -> list[float]:
  """Seconds that each of several calls takes until its result is there; the first is left out."""
  jax.block_until_ready(call())
  found = []
  for _ in range(repeats):
    start_s = time.perf_counter()
    jax.block_until_ready(call())
    found.append(time.perf_counter() - start_s)
  return found


def median_s(call: Callable, repeats: int) -> float:
  """The median of `times_of`."""
  return statistics.median(times_of(call, repeats))


class Chain:
  """Calls that each take what the one before gave, handed over without waiting."""

  def __init__(self, step: Callable, state, length: int):
    self.step, self.state, self.length = step, state, length

  def __call__(self):
    """Makes `length` steps; returns the state."""
    for _ in range(self.length):
      self.state = self.step(self.state)
    return self.state


def copy_bandwidth(num_bytes: int, repeats: int) -> float:
  """Bytes per second that the memory reads and writes: the best of several long copies."""
  step = jax.jit(lambda x: x + 1, donate_argnums=0)
  chain = Chain(step, jnp.zeros(num_bytes // 4, jnp.float32), 10)
  return 2 * num_bytes * chain.length / min(times_of(chain, repeats))


def matmul_peak(size: int, dtype: str, repeats: int) -> float:
  """FLOP per second of products of square matrices, the best of several."""
  key = jax.random.key(0)
  w = (jax.random.normal(key, (size, size)) * size**-0.5).astype(dtype)
  multiply = jax.jit(lambda x, w: x @ w)
  chain = Chain(lambda x: multiply(x, w), w, 10)
  return 2 * size**3 * chain.length / min(times_of(chain, repeats))


def ceilings(flags: argparse.Namespace) -> tuple[float, float, str]:
  """Measures what the device can do at best.

  Returns:
    Bytes per second, FLOP per second in the type of `flags.dtype`, and a note of both.
  """
  is_cpu = jax.devices()[0].platform == 'cpu'
  num_bytes = 2**20 if flags.tiny else 2**28 if is_cpu else 2**31
  size = 64 if flags.tiny else 2048 if is_cpu else 8192
  bandwidth = copy_bandwidth(num_bytes, flags.repeats)
  peak = matmul_peak(size, flags.dtype, flags.repeats)
  return (
    bandwidth,
    peak,
    f'ceilings, measured here: copy of {num_bytes / GIB:.3g} GiB {bandwidth / 1e9:.4g} GB/s; '
    f'product of {size} x {size} matrices in {flags.dtype} {peak / 1e12:.4g} TFLOP/s',
  )


def random_params(config: DecoderConfig, seed: int = 0) -> dict:
  """Random parameters on the device, in `param_dtype`."""
  return jax.jit(init_params, static_argnums=0)(config, jax.random.key(seed))


def program_memory(program: jax.stages.Compiled) -> tuple[int, int]:
  """Bytes that the compiler gives a program: temporary ones, and all with arguments and results."""
  m = program.memory_analysis()
  arguments = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
  return m.temp_size_in_bytes, arguments + m.temp_size_in_bytes
