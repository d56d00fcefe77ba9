"""A training step made of its programs' calls: all that it takes, and how much more than is needed.

A block of decoding costs something once, which is mostly to copy the part of the cache that it
reads, and something for each step. Both grow in a straight line with that part: so two programs
tell of all of one number of rows. Of fewer rows everything is taken to be a share but the weights.
"""

from collections.abc import Iterable, Mapping

from score_jax.core import sharding
from score_jax.planning.calls import Calls, rollout_calls
from score_jax.planning.chips import Chip
from score_jax.planning.lengths import Lengths, full_lengths, real_lengths
from score_jax.planning.memory import Memory
from score_jax.planning.needed import decode_needs, update_needs, weight_bytes
from score_jax.planning.shapes import rollout_sizes, update_rows
from score_jax.rollout.programs import decode_shapes
from score_jax.rollout.sizes import Sizes
from score_jax.setup.run import PlannedRun
from score_jax.training.packing import MAX_EPISODES, pack_lengths

FIELDS = ('flops', 'traffic_bytes', 'sent_bytes', 'chip_seconds', 'collective_seconds')


def planned_step(
  run: PlannedRun, programs: Mapping[str, Mapping], memory: Memory, chip: Chip, around: int
) -> dict[str, dict]:
  """Plans the step of a run twice: with episodes that take all their slots, and with real ones.

  Args:
    run: from `score_jax.planning.shapes.planned_run`.
    programs: of a plan; those that were refused are left out of the step.
    memory: from `count_memory`.
    chip: what a chip can do.
    around: tokens of a prompt beside the problem.

  Returns:
    By 'full' and 'real': 'slots_per_token' of 'decode' and 'update'; 'work', `FIELDS` of each chip
    of 'prefill', 'decode' and 'update'; 'needed' and 'ratios', 'flops' and 'traffic_bytes' of
    'decode' and 'update'.
  """
  c, spec, rollout = run.base.decoder.config, run.spec, run.config.rollout
  group = (rollout.problems_per_step, rollout.samples_per_problem)
  devices, mesh, sizes = sharding.batch_rows(run.mesh), run.mesh.shape, rollout_sizes(run)
  read = weight_bytes(c, mesh)
  weights = {'traffic_bytes': read, 'chip_seconds': read / chip.hbm_bytes_per_s}
  has_adapters = run.trainable.lora is not None
  found = {}
  for kind, lengths in (
    ('full', full_lengths(spec, *group)),
    ('real', real_lengths(spec, *group, around)),
  ):
    calls, counts = rollout_calls(spec, sizes, devices, lengths)
    parts, slots = filled_parts(run, lengths)
    work = rollout_work(programs, calls, weights) if 'decode' in programs else {}
    if 'once' in programs.get('update', {}):
      update = programs['update']
      work['update'] = total([(1, update['once']), (parts, update['each'])])
    needed = {
      'decode': decode_needs(c, mesh, lengths, sizes.slots * devices),
      'update': update_needs(c, mesh, lengths, memory.trained, memory.optimizer, has_adapters),
    }
    found[kind] = {
      'slots_per_token': {
        'decode': counts['decoded'] / counts['sampled'],
        'update': parts * slots / float(lengths.rows.sum()),
      },
      'work': work,
      'needed': needed,
      'ratios': ratios(work, needed),
    }
  return found


def by_time(most: Mapping[str, float], first: Mapping[str, float], times: int) -> dict[str, dict]:
  """Parts what a program takes whose loop may end early: a block of decoding, an update.

  Args:
    most: `FIELDS` where it runs to its end.
    first: where it runs once.
    times: that it runs at most.

  Returns:
    'each', of the loop each time, and 'once', of all else.
  """
  if times == 1:
    each = total([(1, most)])
  else:
    each = {key: (most[key] - first[key]) / (times - 1) for key in FIELDS}
  return {'each': each, 'once': {key: first[key] - each[key] for key in FIELDS}}


def total(parts: Iterable[tuple[float, Mapping[str, float]]]) -> dict[str, float]:
  """Adds up what a plan says of programs.

  Args:
    parts: (how often, the program's `FIELDS`).

  Returns:
    The sum of each field.
  """
  parts = list(parts)
  return {key: sum(times * one[key] for times, one in parts) for key in FIELDS}


def rollout_work(
  programs: Mapping[str, Mapping], calls: Calls, weights: Mapping[str, float]
) -> dict[str, dict[str, float]]:
  """What the calls of a rollout take of each chip.

  Args:
    programs: of a plan.
    calls: from `rollout_calls`.
    weights: 'traffic_bytes' and 'chip_seconds' of reading the weights once.

  Returns:
    `FIELDS` of 'prefill' and 'decode'. Prompts are taken to be given behind as many tokens as a
    slot may have, which is more than they take.
  """
  parts = []
  for shape, steps in calls.steps.items():
    for times, kind, fixed in (
      (steps, 'each', weights),
      (calls.blocks[shape], 'once', {}),
    ):
      # What reads all of the cache copies none.
      copies = kind == 'each' or shape.length < calls.sizes.capacity
      whole = _at_length(programs, kind, shape.length if copies else 0, calls.sizes)
      share = shape.rows / calls.sizes.slots
      own = {key: min(fixed.get(key, 0), x) for key, x in whole.items()}
      parts.append((times, {k: own[k] + (x - own[k]) * share for k, x in whole.items()}))
  return {'prefill': total([(calls.given, programs['prefill'])]), 'decode': total(parts)}


def _at_length(programs, kind: str, length: int, sizes: Sizes) -> dict[str, float]:
  """A straight line through the programs that are there."""
  shapes = decode_shapes(sizes)
  last, first = shapes['decode'], shapes.get('decode, short')
  most = programs['decode'][kind]
  if first is None or (last.length == sizes.capacity and not length):
    return {key: most[key] for key in FIELDS}
  least, part = programs['decode, short'][kind], length - first.length
  part /= last.length - first.length
  return {key: least[key] + part * (most[key] - least[key]) for key in FIELDS}


def filled_parts(run: PlannedRun, lengths: Lengths) -> tuple[int, int]:
  """How an update packs episodes.

  Args:
    run: as for `planned_step`.
    lengths: of the episodes.

  Returns:
    Parts of the update that have tokens, and slots of a part.
  """
  rows, slots = update_rows(run), run.spec.first_slot(run.spec.num_turns)
  if rows == len(lengths.rows):
    return 1, rows * slots
  return -(-len(pack_lengths(lengths.rows, slots, MAX_EPISODES)) // rows), rows * slots


def ratios(work: Mapping[str, Mapping], needed: Mapping[str, Mapping]) -> dict[str, dict]:
  """How many times what is needed a step takes.

  Args:
    work: `FIELDS` of 'decode' and 'update'.
    needed: 'traffic_bytes' and 'flops' of the same.

  Returns:
    'traffic_bytes' and 'flops' of each.
  """
  return {
    part: {key: work[part][key] / x for key, x in needs.items()}
    for part, needs in needed.items()
    if part in work
  }


def grown(ratios: Mapping, kept: Mapping, share: float = 0.05) -> list[str]:
  """Names the ratios that have grown.

  Args:
    ratios: by 'full' and 'real', then as `ratios` gives them.
    kept: the same, as they were.
    share: by which one may grow.

  Returns:
    A line for each that is larger than that.
  """
  return [
    f'{kind} lengths, {part}, {key}: {x:.3f} times what is needed, where it was {before:.3f}'
    for kind, parts in kept.items()
    for part, one in parts.items()
    for key, before in one.items()
    if (x := ratios[kind][part][key]) > (1 + share) * before
  ]
