"""Several episodes in a row, so that an update computes real tokens and few holes.

    episodes  aaaaaaa.....  bbb.........  cccc........  dd..........
    rows      aaaaaaacccc.  bbbdd.......  each token still sees its own episode alone

The rows are computed N at a time: one compiled program takes any number of such parts, however many
the step's tokens fill. All of this is NumPy on the host, before the update is handed to the device.
"""

import bisect
import dataclasses
import math

import numpy as np
from jax.sharding import AbstractMesh, Mesh

from score_jax.core.sharding import batch_rows
from score_jax.core.types import Batch, Episode, PackedRows
from score_jax.training.supervised import TraceBatch

# Episodes that may share a row, at most. The objective makes arrays of [rows, S * K, slots], small
# beside the model's; with fewer, rows of many short episodes would end in holes.
MAX_EPISODES = 16
# Slots that each device computes at a time, at least: a part reads all weights, sends those that
# are split over devices, and adds its gradient to a sum as large as they are. A CPU is soon busy.
_MIN_SLOTS, _MIN_SLOTS_CPU = 4096, 512
# Parts of a batch without holes, at most; of one with them, the last part is half empty on average.
_PARTS = 32
_NOBODY = np.iinfo(np.int32).max


def pack_lengths(lengths_B: np.ndarray, slots: int, limit: int) -> list[list[int]]:
  """Puts each episode into the fullest row that still holds it, the longest first.

  Args:
    lengths_B: tokens of each episode, none more than `slots` (`pack` checks it); one of 0 is left
      out.
    slots: of a row.
    limit: episodes of a row, at most.

  Returns:
    For each row its episodes, in order.

  Example:
    >>> pack_lengths(np.array([3, 9, 4, 2]), 12, 4)
    [[1, 0], [2, 3]]
  """
  rows: list[list[int]] = []
  free: list[tuple[int, int]] = []  # slots and number of each row that is still open, sorted
  for b in np.argsort(-np.asarray(lengths_B), kind='stable').tolist():
    length = int(lengths_B[b])
    if not length:
      continue
    at = bisect.bisect_left(free, (length, 0))
    if at < len(free):
      left, row = free.pop(at)
    else:
      left, row = slots, len(rows)
      rows.append([])
    rows[row].append(b)
    if len(rows[row]) < limit:
      bisect.insort(free, (left - length, row))
  return rows


@dataclasses.dataclass(frozen=True)
class Packing:
  """Where the tokens of B episodes go.

  Attributes:
    source: i32[N, C, T] which of the B * T' slots of the episodes comes here; -1 for a hole.
    positions: i32[N, C, T] place in its episode.
    segment: i32[N, C, T] as in `PackedRows`.
    episode: i32[N, C, S] as in `PackedRows`.
  """

  source: np.ndarray
  positions: np.ndarray
  segment: np.ndarray
  episode: np.ndarray

  @property
  def is_token(self) -> np.ndarray:
    """bool[N, C, T]."""
    return self.source >= 0

  @property
  def told_apart(self) -> np.ndarray | None:
    """The segments, where rows hold several episodes at all."""
    return self.segment if self.episode.shape[-1] > 1 else None

  def lay(self, x_BT: np.ndarray) -> np.ndarray:
    """Lays a token quantity out: [B, T'] -> [N, C, T], 0 in holes."""
    x = np.asarray(x_BT).ravel()[np.maximum(self.source, 0)]
    return np.where(self.is_token, x, np.zeros((), x.dtype))


def pack(is_token_BT: np.ndarray, slots: int, rows: int) -> Packing:
  """Packs episodes into rows.

  Args:
    is_token_BT: bool[B, T'] which slots of the episodes hold tokens.
    slots: T of the rows, at least the longest episode's tokens.
    rows: N that are computed at a time. Where that is all B episodes with a row for each, packing
      would save nothing, and each has its own, in order.

  Returns:
    The packing; C is B / N, rounded up, so that it depends on no lengths. Parts without tokens come
    last.

  Raises:
    ValueError: for an episode that is longer than a row.
  """
  is_token_BT = np.asarray(is_token_BT)
  parts = -(-len(is_token_BT) // rows)
  lengths_B = is_token_BT.sum(axis=1)
  if lengths_B.max() > slots:
    raise ValueError(f'an episode of {lengths_B.max()} tokens does not fit into {slots} slots')
  if parts > 1:
    limit, contents = MAX_EPISODES, pack_lengths(lengths_B, slots, MAX_EPISODES)
  else:
    limit, contents = 1, [[b] for b in range(len(is_token_BT))]
  shape = (parts, rows, slots)
  source, positions, segment = (np.full(shape, x, np.int32) for x in (-1, 0, 0))
  episode = np.full((parts, rows, limit), _NOBODY, np.int32)
  width = is_token_BT.shape[1]
  for number, of_row in enumerate(contents):
    part, row = divmod(number, rows)
    start = 0
    for s, b in enumerate(of_row):
      own = np.flatnonzero(is_token_BT[b])
      there = (part, row, slice(start, start + len(own)))
      source[there] = b * width + own
      positions[there] = np.arange(len(own))
      segment[there] = s + 1
      episode[part, row, s] = b
      start += len(own)
  return Packing(*(x.swapaxes(0, 1) for x in (source, positions, segment, episode)))


def pack_episodes(
  episode: Episode, reward_BK: np.ndarray, slots: int, rows: int, first: int = 0
) -> Batch:
  """Makes what one update learns from.

  Args:
    episode: B episodes on the host, in slots, with holes or without.
    reward_BK: f32[B, K] raw verdicts.
    slots: T of the rows; few values, for the update is compiled for each.
    rows: N that are computed at a time.
    first: number of the first episode, where other processes have those before it.

  Returns:
    The batch, on the host.

  Raises:
    ValueError: for an episode that is longer than a row.
  """
  packing, K = pack(episode.is_token, slots, rows), reward_BK.shape[1]
  turn = packing.lay(np.where(episode.is_sampled, episode.turn, 0))
  # What comes before an episode's first token is of another one: it cannot be scored.
  turn = np.where((turn > 0) & (packing.positions > 0), turn + K * (packing.segment - 1), 0)
  is_somebody = packing.episode != _NOBODY
  rows_of = PackedRows(
    tokens=packing.lay(episode.tokens),
    positions=packing.positions,
    is_token=packing.is_token,
    turn=turn.astype(np.int32),
    sampled_logp=packing.lay(episode.sampled_logp),
    episode=np.where(is_somebody, packing.episode + np.where(is_somebody, first, 0), _NOBODY),
    segment=packing.told_apart,
  )
  return Batch(rows_of, np.asarray(reward_BK, np.float32), np.asarray(episode.is_truncated))


def pack_traces(traces: TraceBatch, rows: int) -> TraceBatch:
  """Packs traces to imitate.

  Args:
    traces: B left-aligned rows on the host.
    rows: N that are computed at a time.

  Returns:
    The same tokens in rows as long as before: arrays [N, C, T].
  """
  packing = pack(traces.is_token, traces.tokens.shape[1], rows)
  return TraceBatch(
    tokens=packing.lay(traces.tokens),
    positions=packing.positions,
    is_token=packing.is_token,
    is_target=packing.lay(traces.is_target),
    segment=packing.told_apart,
  )


def rows_at_once(
  episodes: int, slots: int, mesh: Mesh | AbstractMesh, micro_batches: int = 1
) -> int:
  """How many rows an update computes at a time.

  Few, so that little of the last part is empty and little memory is taken, and not so few that
  what a part costs by itself shows.

  Args:
    episodes: B of the whole batch, a multiple of `micro_batches` times the devices that rows are
      split over.
    slots: T of a row.
    mesh: the devices; without any, accelerators that are planned for.
    micro_batches: divides the 32nd of the batch that is computed at a time, not the least number of
      slots; and there are no more rows than B divided by this.

  Returns:
    N of all devices, a multiple of those that rows are split over.

  Example:
    >>> from score_jax.core.sharding import make_mesh
    >>> mesh = make_mesh((1, 1, 1))
    >>> rows_at_once(512, 1024, mesh), rows_at_once(512, 1024, mesh, 4), rows_at_once(64, 36, mesh)
    (16, 4, 15)
  """
  devices = batch_rows(mesh)
  is_cpu = not isinstance(mesh, AbstractMesh) and mesh.devices.flat[0].platform == 'cpu'
  least = _MIN_SLOTS_CPU if is_cpu else _MIN_SLOTS
  wanted = max(episodes / (_PARTS * micro_batches), least * devices / slots)
  return min(math.ceil(wanted / devices) * devices, episodes // micro_batches)
