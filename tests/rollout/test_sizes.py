"""Few shapes, that fit every row."""

from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.sizes import Sizes


def test_shapes_are_few_and_cover_all():
  for slots in (1, 6, 64):
    for budget in (10, 300, 1024):
      spec = RolloutSpec(384, (budget, budget), ((1,) * 64,), (9,))
      sizes = Sizes.of(spec, slots)
      total = spec.first_slot(2)
      assert sizes.lengths[-1] == total and len(sizes.lengths) <= 4
      assert len(sizes.blocks()) + len(sizes.past()) + 1 <= 10
      assert sizes.capacity >= total + max(sizes.steps, sizes.piece)
      # In whole tiles of a TPU, all of them read by the longest block: nothing is copied.
      assert sizes.capacity % 8 == 0
      longest = sizes.block(slots, total)
      assert (longest.rows, longest.length) == (slots, sizes.capacity)
      cheap = sizes.block(1, 1)
      assert cheap.rows * cheap.length == min(x.rows * x.length for x in sizes.blocks())
