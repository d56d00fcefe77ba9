"""Who sits where: episodes through few slots, without a model."""

import numpy as np
import pytest

from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.schedule import Schedule
from score_jax.rollout.sizes import Sizes

END = 9
SPEC = RolloutSpec(
  prompt_tokens=6, turn_tokens=(40, 40), followup_ids=((3, 4),), end_of_turn_ids=(END,)
)


class FakeDevice:
  """Keeps what a slot would hold as plain ids, and samples answers of given lengths."""

  def __init__(self, schedule, lengths_NK, num_devices, slots):
    self.schedule, self.lengths, self.decoded = schedule, lengths_NK, 0
    self.held = [[[] for _ in range(slots)] for _ in range(num_devices)]
    self.seen = {}

  def give(self, pieces):
    rows = self.schedule.sizes.rows
    for held, mine in zip(self.held, pieces, strict=True):
      for i in range(0, len(mine), rows):
        slots = [p.slot for p in mine[i : i + rows] if p.tokens]
        assert len(set(slots)) == len(slots)  # a call gives a slot one piece
      for p in mine:
        if p.tokens:
          held[p.slot][p.length :] = p.tokens
          assert len(held[p.slot]) == p.length + len(p.tokens)  # without a gap

  def copy(self, sources):
    for held, source in zip(self.held, sources, strict=True):
      before = [list(ids) for ids in held]
      for slot, other in enumerate(source):
        if other >= 0:
          held[slot] = before[other][:6]

  def block(self, turns):
    """A row of turn k samples the ids 100 row + k, its end last; up to three in a block."""
    tokens, counts = [], []
    for held, mine in zip(self.held, turns, strict=True):
      assert len({t.slot for t in mine}) == len(mine)
      for t in mine:
        count = min(3, t.left, self.lengths[t.row, t.turn] - t.sampled) if t.left else 0
        ids = [100 * t.row + t.turn] * count
        if count and t.sampled + count == self.lengths[t.row, t.turn]:
          ids[-1] = END
        if count:
          if t.sampled == 0:
            self.seen[t.row, t.turn] = held[t.slot][: t.length]
          held[t.slot][t.length :] = ids
        tokens.append(ids + [0] * (3 - count))
        counts.append(count)
    self.decoded += 3 * len(counts)
    tokens = np.asarray(tokens, np.int32)
    return tokens, -tokens.astype(np.float32), np.asarray(counts)


def run(lengths_NK, samples=4, slots=3, num_devices=2, forced=None, budgets=None):
  """All episodes; returns the schedule and what each row had before it when a turn began."""
  n = len(lengths_NK)
  prompt = np.repeat(np.arange(-(-n // samples)), samples)[:n]
  prompts = np.full((n, 6), 50, np.int32) + prompt[:, None].astype(np.int32)
  sizes = Sizes.of(SPEC, slots)
  budgets = np.full((n, 2), 40) if budgets is None else budgets
  schedule = Schedule(SPEC, sizes, (prompts, prompts > 0), budgets, forced or {}, num_devices)
  device = FakeDevice(schedule, lengths_NK, num_devices, slots)
  for _ in range(10_000):
    pieces, sources = schedule.seat()
    device.give(pieces)
    device.copy(sources)
    device.give(schedule.given())
    rows, longest = schedule.live()
    if not rows:
      return schedule, device, prompts
    assert longest <= sizes.block(rows, longest).length
    turns = schedule.turns(sizes.block(rows, longest).rows)
    schedule.take(turns, *device.block(turns))
  raise AssertionError('it never ends')


@pytest.mark.parametrize(
  ('slots', 'num_devices', 'samples'), [(3, 2, 4), (8, 1, 4), (1, 1, 1), (5, 3, 2)]
)
def test_each_row_sees_its_own_episode(slots, num_devices, samples):
  rng = np.random.default_rng(slots)
  lengths = rng.integers(1, 40, (23, 2), endpoint=True)
  lengths[5], lengths[6] = (1, 1), (60, 60)  # ends at once; is cut twice
  schedule, device, prompts = run(lengths, samples, slots, num_devices)
  e = schedule.episode
  for row, (first, second) in enumerate(lengths):
    prompt, ids = prompts[row].tolist(), [100 * row] * min(first, 40)
    if first <= 40:
      ids[-1] = END
    assert device.seen[row, 0] == prompt
    assert device.seen[row, 1] == prompt + ids + [END] * int(first > 40) + [3, 4]
    assert e.tokens[row, e.turn[row] == 1].tolist() == ids
    assert (e.turn[row] == 2).sum() == min(second, 40)
    assert e.is_truncated[row].tolist() == [first > 40, second > 40]
    sampled = e.is_sampled[row]
    np.testing.assert_array_equal(e.sampled_logp[row, sampled], -e.tokens[row, sampled])
  told = sorted((a.row, a.turn) for a in schedule.answers)
  assert told == [(row, turn) for row in range(23) for turn in (0, 1)]


def test_forced_rows_and_turns():
  """A forced first answer is given, not sampled; where all is forced, nothing is decoded."""
  lengths = np.full((6, 2), 7)
  ids = np.full((6, 40), 8, np.int32)
  is_token = np.broadcast_to(np.arange(40) < 5, ids.shape)
  schedule, device, prompts = run(lengths, forced={0: (ids, is_token)})
  for row in range(6):
    assert device.seen[row, 1] == prompts[row].tolist() + [8] * 5 + [END, 3, 4]
    assert (row, 0) not in device.seen
  schedule, device, _ = run(lengths, forced={0: (ids, is_token), 1: (ids, is_token)})
  assert device.decoded == 0 and len(schedule.answers) == 12


def test_a_prompt_is_run_once_on_a_device(monkeypatch):
  lengths, given, seat = np.random.default_rng(1).integers(1, 40, (32, 2)), [], Schedule.seat

  def watched(self):
    pieces, sources = seat(self)
    given.extend(p for mine in pieces for p in mine if p.tokens)
    return pieces, sources

  monkeypatch.setattr(Schedule, 'seat', watched)
  run(lengths, samples=8, slots=4, num_devices=1)
  assert len(given) == 4
