"""What a compiled program does on each chip: products, traffic of its memory, collectives.

Counted from the program's own text, every loop as often as it runs (`score_jax.planning.hlo`); the
compiler's own cost analysis counts the body of a loop once.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from score_jax.planning.chips import HOP_S, Chip, ring
from score_jax.planning.groups import axes_of, groups_of
from score_jax.planning.hlo import Array, Computation, Instruction, Module

COLLECTIVES = (
  'all-gather',
  'all-reduce',
  'reduce-scatter',
  'all-to-all',
  'ragged-all-to-all',
  'collective-broadcast',
  'collective-permute',
)
# They say where a value is and move none.
_FREE = {'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'while', 'conditional'}
_FREE |= {'call', 'after-all', 'partition-id', 'replica-id', 'opt-barrier', 'async-start'}
_SPLASH_PRODUCTS = {'splash_mha_fwd': 2, 'splash_mha_dq': 3, 'splash_mha_dkv': 4}
_READS_A_PART = {'dynamic-slice', 'slice', 'gather'}


@dataclasses.dataclass(frozen=True)
class Collective:
  """Messages of one kind, between chips along the same axes, from the same place of the program.

  Attributes:
    kind: 'all-gather', ...
    axes: of the mesh, 'fsdp' or 'data+fsdp'.
    source: the operation of the traced program that needs them.
    times: how often they are sent.
    sent: bytes that a chip sends, over all times.
    seconds: at the links' peak, and no less than the way's delay.
  """

  kind: str
  axes: str
  source: str
  times: int
  sent: int
  seconds: float


@dataclasses.dataclass(frozen=True)
class Costs:
  """What one run of a program takes on each chip.

  Attributes:
    flops: of products of matrices.
    traffic: bytes that main memory reads and writes.
    seconds: each operation at the chip's peak, of products or of memory, one after the other.
    collectives: largest time first.
    unknown_loops: loops that are counted once because the text does not say how often they run.
  """

  flops: int
  traffic: int
  seconds: float
  collectives: tuple[Collective, ...]
  unknown_loops: tuple[str, ...]

  @property
  def sent(self) -> int:
    """Bytes that a chip sends."""
    return sum(x.sent for x in self.collectives)

  @property
  def collective_seconds(self) -> float:
    """Of all collectives, one after the other."""
    return sum(x.seconds for x in self.collectives)


def count(
  module: Module,
  chip: Chip,
  mesh: Mapping[str, int],
  coordinates: Sequence[tuple[int, ...]],
  most: int | None = None,
) -> Costs:
  """Counts what a program takes on each chip.

  Args:
    module: the program.
    chip: what a chip can do.
    mesh: sizes of the mesh's axes.
    coordinates: where each chip of the mesh lies in the slice, in the mesh's order.
    most: how often a loop runs that may end early; None for as often as it may.

  Returns:
    The sums.
  """
  flops = traffic = 0
  seconds, unknown = 0.0, []
  found: dict[tuple, list] = {}
  seen = set()
  shape = tuple(max(places) + 1 for places in zip(*coordinates, strict=True))

  def its_seconds(x, computation):
    its_flops, its_traffic = _flops(module, x, computation), _traffic(module, x, computation)
    return max(its_flops / chip.flops_per_s, its_traffic / chip.hbm_bytes_per_s)

  for x, computation, times in module.executed(its_seconds, most):
    its_flops = _flops(module, x, computation)
    its_traffic = _traffic(module, x, computation)
    flops += times * its_flops
    traffic += times * its_traffic
    seconds += times * its_seconds(x, computation)
    if x.opcode == 'while' and module.trips(x) is None:
      unknown.append(x.source or x.name)
    for part, place in [(x, computation), *module.inside(x)]:
      kind = _kind(part, x)
      # An asynchronous collective stands in several fusions of a computation, under one channel.
      channel = (computation.name, part.attribute(r'channel_id=(\d+)') or part.name)
      if kind is None or channel in seen:
        continue
      seen.add(channel)
      axes, sent, delay = _message(kind, part, place, chip, shape, mesh, coordinates)
      entry = found.setdefault((kind, axes, part.source), [0, 0, 0.0])
      for i, value in enumerate((1, sent, delay)):
        entry[i] += times * value
  collectives = [Collective(*key, *values) for key, values in found.items() if key[1]]
  collectives.sort(key=lambda x: (-x.seconds, x.kind, x.axes, x.source))
  return Costs(flops, traffic, seconds, tuple(collectives), tuple(unknown))


def _kind(x: Instruction, outer: Instruction) -> str | None:
  kind = x.opcode.removesuffix('-start')
  if kind not in COLLECTIVES:
    return None
  # TPUs run a sum of which each chip keeps its part as one fusion of both.
  return 'reduce-scatter' if 'all-reduce-scatter' in outer.name else kind


def _message(kind, x, computation, chip, shape, mesh, coordinates) -> tuple[str, int, float]:
  """Axes, bytes that a chip sends, seconds; in rings, the way that takes the fewest bytes."""
  groups = groups_of(x.attributes, math.prod(mesh.values()))
  n = groups.shape[1]
  size = sum(a.size for name in x.operands for a in computation.instructions[name].arrays)
  sent = {
    'all-gather': size * (n - 1),
    'all-reduce': 2 * size * (n - 1) // n,
    'collective-permute': size,
    'collective-broadcast': size,
  }.get(kind, size * (n - 1) // n)
  links, hops = ring(chip, shape, [coordinates[i] for i in groups[0]])
  return axes_of(groups, mesh), sent, max(sent / (links * chip.link_bytes_per_s), hops * HOP_S)


def _flops(module: Module, x: Instruction, computation: Computation) -> int:
  parts = [(x, computation), *module.inside(x)]
  return sum(_product_flops(part, place) + _kernel_flops(part, place) for part, place in parts)


def _kernel_flops(x: Instruction, computation: Computation) -> int:
  """Products of splash attention, whose body the text does not show; the half that is not masked.

  Source: `jax.experimental.pallas.ops.tpu.splash_attention`, products of a block in each kernel.
  """
  if x.opcode != 'custom-call':
    return 0
  products = next((n for name, n in _SPLASH_PRODUCTS.items() if x.name.startswith(name)), 0)
  if not products:
    return 0
  operands = (computation.instructions[name].arrays[0] for name in x.operands)
  # Tables of blocks, of whole numbers, come first. The axis of rows is missing where there is one.
  queries, keys, *_ = (x.dims for x in operands if re.match('b?f', x.dtype))
  return products * math.prod(queries) * keys[-2]  # twice the multiplications, of one half


def _product_flops(x: Instruction, computation: Computation) -> int:
  """Twice the multiplications of a product of matrices; TPUs write it as a convolution."""
  if x.opcode not in ('dot', 'convolution'):
    return 0
  left, right = (computation.instructions[name].arrays[0].dims for name in x.operands)
  out = x.arrays[0].dims
  if x.opcode == 'dot':
    summed = x.attribute(r'lhs_contracting_dims=\{([\d,]*)\}') or ''
    return 2 * math.prod(out) * math.prod(left[int(i)] for i in summed.split(',') if i)
  lhs, rhs, result = re.split('_|->', x.attribute(r'dim_labels=([^\s,]+)'))
  window = dict(re.findall(r'(\w+)=([^\s}]+)', x.attribute(r'window=\{([^}]*)\}') or ''))
  flops = 2 * out[result.index('b')] * out[result.index('f')] * right[rhs.index('i')]
  for i in range(len(lhs) - 2):
    sizes = (left[lhs.index(str(i))], right[rhs.index(str(i))], out[result.index(str(i))])

    def option(name, default, i=i):
      values = window.get(name)
      return default if values is None else values.split('x')[i]

    low = int(option('pad', '0_0').split('_')[0])
    steps = (int(option(name, '1')) for name in ('stride', 'lhs_dilate', 'rhs_dilate'))
    flops *= _pairs(*sizes, low, *steps)
  return flops


@functools.cache
def _pairs(size, kernel, out, low, stride, lhs_dilate, rhs_dilate) -> int:
  """Pairs of an output and a kernel place whose input is there, neither padding nor a gap."""
  place = np.arange(out)[:, None] * stride + np.arange(kernel)[None] * rhs_dilate - low
  is_there = (place >= 0) & (place <= (size - 1) * lhs_dilate) & (place % lhs_dilate == 0)
  return int(is_there.sum())


def _traffic(module: Module, x: Instruction, computation: Computation) -> int:
  """Bytes between main memory and the chip's other memories or units."""
  if x.opcode in _FREE or x.opcode.endswith(('-done', '-update')):
    return 0
  places = [computation.instructions[name].arrays for name in x.operands]
  if x.opcode == 'fusion':
    inner = module.computations[x.called('calls')[0]]
    reads = [_read(module, inner, i, array) for i, (array, *_) in enumerate(places)]
    return sum(reads) + sum(_writes(module, inner, x.arrays))
  if x.opcode == 'copy-start':  # (to, from, flag)
    return sum(array.hbm for array in x.arrays[:2])
  if x.opcode == 'slice-start':  # ((from), part, flag)
    source, part = x.arrays[:2]
    return part.hbm + (part.size if source.is_in_hbm else 0)
  if x.opcode in _READS_A_PART:
    return x.arrays[0].hbm + (x.arrays[0].size if places[0][0].is_in_hbm else 0)
  if x.opcode == 'dynamic-update-slice':
    return places[1][0].hbm + (places[1][0].size if x.arrays[0].is_in_hbm else 0)
  outputs = () if x.opcode.endswith('-start') else x.arrays
  return sum(a.hbm for arrays in (*places, outputs) for a in arrays)


def _read(module: Module, inner: Computation, number: int, array: Array) -> int:
  """Bytes that a fusion reads of an argument."""
  if not array.is_in_hbm:
    return 0
  return min(array.size, _used(module, inner, inner.parameters[number], array.size))


def _used(module: Module, inner: Computation, x: Instruction, size: int) -> int:
  total = 0
  for user in inner.users[x.name]:
    if user.opcode in _READS_A_PART and user.operands[0] == x.name:
      total += user.arrays[0].size
    elif user.opcode == 'bitcast':
      total += _used(module, inner, user, size)
    elif user.opcode == 'fusion':
      deeper = module.computations[user.called('calls')[0]]
      for i, name in enumerate(user.operands):
        if name == x.name:
          total += _used(module, deeper, deeper.parameters[i], size)
      if _renamed_operand(module, user) == x.name:
        total += _used(module, inner, user, size)
    elif not _is_passed_on(user) and not _is_target(user, x):
      total += size
  return total


def _renamed_operand(module: Module, fusion: Instruction) -> str | None:
  """The operand that a fusion gives back, in another shape at most; None if it makes something."""
  inner = module.computations[fusion.called('calls')[0]]
  result = inner.root
  while result.opcode == 'bitcast':
    result = inner.instructions[result.operands[0]]
  return fusion.operands[int(result.argument)] if result.opcode == 'parameter' else None


def _is_target(user: Instruction, x: Instruction) -> bool:
  """Whether an array is only the place that a part is written to."""
  return user.opcode == 'dynamic-update-slice' and user.operands[0] == x.name


def _is_passed_on(x: Instruction) -> bool:
  """Whether an instruction of a fusion is a collective's, whose bytes are counted apart."""
  kind = x.opcode.removesuffix('-start')
  return x.opcode == 'tuple' or kind in COLLECTIVES or 'AsyncCollective' in x.attributes


def _writes(module: Module, inner: Computation, outputs: tuple[Array, ...]) -> list[int]:
  """Bytes that a fusion writes of each result."""
  root = inner.root
  if root.opcode == 'fusion' and not _renamed_operand(module, root):
    return _writes(module, module.computations[root.called('calls')[0]], outputs)
  if root.opcode != 'tuple':
    return [_written(module, inner, root, array) for array in outputs]
  made = [inner.instructions[name] for name in root.operands]
  return [_written(module, inner, x, a) for x, a in zip(made, outputs, strict=False)]


def _written(module: Module, inner: Computation, x: Instruction, array: Array) -> int:
  if not array.is_in_hbm or x.opcode == 'parameter' or _is_passed_on(x):
    return 0
  if x.opcode == 'bitcast':
    return _written(module, inner, inner.instructions[x.operands[0]], array)
  if x.opcode == 'fusion' and (name := _renamed_operand(module, x)):
    return _written(module, inner, inner.instructions[name], array)
  if x.opcode == 'dynamic-update-slice':
    return inner.instructions[x.operands[1]].arrays[0].size
  return array.size
