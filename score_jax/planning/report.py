"""A plan in words: its tables, and what is wrong with it.

A plan is a dict that JSON can hold. `programs` has entries of what one call takes: 'prefill',
'decode, short', 'decode' and 'update', or, where the compiler refused one, 'rollout' for the first
three. `step` has what a whole step takes (`score_jax.planning.step`). All numbers are those of one
chip.
"""

import math
import re
from collections.abc import Mapping

from score_jax.planning.chips import CHIPS, GIB, HOP_S
from score_jax.planning.costs import Costs

NUM_SOURCES = 12  # collectives of a program that are listed one by one, those of the longest time
_WRAPPERS = re.compile(r'jit\([^()]*\)/|(?:closed_call|checkpoint|rematted_computation|body)/')


def short_source(op_name: str) -> str:
  """Leaves out of an operation's path what says nothing of the model.

  Example:
    >>> short_source('jit(step)/Decoder/while/body/closed_call/checkpoint/layers/mlp/dot')
    'Decoder/while/layers/mlp/dot'
  """
  return _WRAPPERS.sub('', op_name) or '(made by the compiler)'


def summary_of_costs(costs: Costs) -> dict:
  """Makes of a program's costs what a plan holds.

  Args:
    costs: of one program.

  Returns:
    Sums, collectives by kind and axes, and those of the longest time by source.
  """
  totals: dict[tuple, list] = {}
  sources: dict[tuple, list] = {}
  for x in costs.collectives:
    for table, key in (
      (totals, (x.kind, x.axes)),
      (sources, (x.kind, x.axes, short_source(x.source))),
    ):
      entry = table.setdefault(key, [0, 0, 0.0])
      for i, value in enumerate((x.times, x.sent, x.seconds)):
        entry[i] += value

  def rows(table, names):
    fields = (*names, 'times', 'sent_bytes', 'seconds')
    found = [dict(zip(fields, (*k, *v), strict=True)) for k, v in table.items()]
    return sorted(found, key=lambda row: -row['seconds'])

  return {
    'flops': costs.flops,
    'traffic_bytes': costs.traffic,
    'sent_bytes': costs.sent,
    'chip_seconds': costs.seconds,
    'collective_seconds': costs.collective_seconds,
    'collectives': rows(totals, ('kind', 'axes')),
    'sources': rows(sources, ('kind', 'axes', 'source'))[:NUM_SOURCES],
    'unknown_loops': [short_source(x) for x in costs.unknown_loops],
  }


def faults(plan: Mapping) -> list[str]:
  """Says why a plan cannot run, and what to change.

  Args:
    plan: see the module.

  Returns:
    A line for each fault; empty if there is none.
  """
  mesh = ', '.join(f'{axis}={size}' for axis, size in plan['mesh'].items())
  limit, kept = plan['hbm_bytes'], sum(plan['kept_bytes'].values())
  found = []
  if kept > limit:
    found.append(
      f'parameters, optimiser and reference alone take {kept / GIB:.2f} GiB of the '
      f'{limit / GIB:.2f} GiB of a chip of {plan["topology"]}. {_KEPT_REMEDY}'
    )
  elif plan['rollout_at_least_bytes'] > limit:
    found.append(
      f'a rollout takes at least {plan["rollout_at_least_bytes"] / GIB:.2f} GiB of the '
      f'{limit / GIB:.2f} GiB of a chip of {plan["topology"]}: {kept / GIB:.2f} for what a run '
      'keeps, the weights for decoding, and the keys and values of all slots. '
      f'{_ROLLOUT_REMEDY}'
    )
  for name, one in plan['programs'].items():
    is_update = name == 'update'
    remedy = _UPDATE_REMEDY if is_update else _ROLLOUT_REMEDY
    if 'refused' in one:
      found.append(f'the {name} does not fit: {_refusal(one["refused"])}. {remedy}')
    elif one['peak_bytes'] > limit:
      found.append(
        f'{name} takes {one["peak_bytes"] / GIB:.2f} GiB of the {limit / GIB:.2f} GiB of a chip of '
        f'{plan["topology"]}, {kept / GIB:.2f} of them for what a run '
        f'keeps. {remedy}'
      )
  for one in plan['whole']:
    axes = ' and '.join(one['axes'])
    found.append(
      f'{one["name"]} lies whole along {axes}: each chip has {one["bytes"] / GIB:.2f} GiB of it, '
      f'although config.mesh has {mesh}. Name its axes in score_jax/model/decoder.py so that RULES '
      f'in score_jax/core/sharding.py split one of them over {axes}'
    )
  return found


_KEPT_REMEDY = (
  "Split them by the second number of config.mesh (fsdp), set config.model.param_dtype='bfloat16' "
  'for the reference, train adapters (config.lora.rank), or take more chips'
)
_ROLLOUT_REMEDY = (
  'Lower config.rollout.slots (0 is all episodes of a step) or config.rollout.turn_tokens, split '
  'the keys and values by the last number of config.mesh (tensor), or take more chips'
)
_UPDATE_REMEDY = (
  "Raise config.train.micro_batches, set config.model.remat='block', lower "
  "config.train.chunk_tokens, set config.model.param_dtype='bfloat16' for the reference, or take "
  'more chips'
)


def _refusal(message: str) -> str:
  """The sentence of the compiler that has the numbers."""
  numbers = r'Used [\d.]+\w? of [\d.]+\w? hbm[^\n]*|the total memory required [^\n]*'
  found = re.search(numbers, message)
  return found[0].rstrip('. ') if found else message.splitlines()[0][:300]


def plan_text(plan: Mapping) -> str:
  """Lays out a plan for a person.

  Args:
    plan: see the module.

  Returns:
    Tables in Markdown.
  """
  mesh = ', '.join(f'{axis} {size}' for axis, size in plan['mesh'].items())
  num_chips = math.prod(plan['mesh'].values())
  lines = [
    f'{plan["config"]} ({plan["preset"]}) on {plan["topology"]}: {num_chips} chips ({mesh}), '
    f'{plan["episodes"]} episodes of {plan["slots"]} tokens a step',
    '',
    *_memory_lines(plan),
    '',
    *_work_lines(plan),
  ]
  for name, one in plan['programs'].items():
    if one.get('sources'):
      lines += ['', f'Collectives of {name}, of the longest time first:', '', *_sources(one)]
    if one.get('unknown_loops'):
      lines += ['', f'Of {name} counted once, for nothing says how often: {one["unknown_loops"]}']
  return '\n'.join([*lines, '', *_assumptions(plan)])


def slices_table(plans: Mapping[str, Mapping]) -> str:
  """Lays out which slice each of several plans is for.

  Args:
    plans: by preset.

  Returns:
    A Markdown table.
  """
  lines = [
    '| preset | slice | mesh | peak, GiB: rollout | update | step, s |',
    '|---|---|---|---|---|---|',
  ]
  for preset, plan in sorted(plans.items()):
    mesh = ', '.join(str(size) for size in plan['mesh'].values())
    peaks = {name: one['peak_bytes'] / GIB for name, one in plan['programs'].items()}
    update = peaks.pop('update')
    chip, messages = step_seconds(plan)
    lines.append(
      f'| {preset} | {plan["topology"]} | {mesh} | {max(peaks.values()):.1f} | {update:.1f} '
      f'| {max(chip, messages):.0f} to {chip + messages:.0f} |'
    )
  return '\n'.join(lines)


def step_seconds(plan: Mapping) -> tuple[float, float]:
  """Adds up a full step's time: of all operations at the chip's peak, and of all messages."""
  parts = plan['step']['full']['work'].values()
  chip = sum(one['chip_seconds'] for one in parts)
  return chip, sum(one['collective_seconds'] for one in parts)


def _memory_lines(plan) -> list[str]:
  kept = plan['kept_bytes']
  lines = ['| on each chip, GiB | ' + ' | '.join(plan['programs']) + ' |']
  lines.append('|---|' + '---|' * len(plan['programs']))

  def row(name, cell):
    cells = ('' if 'refused' in x else f'{cell(x) / GIB:.2f}' for x in plan['programs'].values())
    lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')

  for name, key in (('parameters', 'parameters'), ('optimiser', 'optimizer')):
    row(name, lambda _, key=key: kept[key])
  row('reference', lambda _: kept['reference'])
  row('results (rollout: cache, tokens)', lambda x: x['result_bytes'])
  row('temporary', lambda x: x['temporary_bytes'])
  row('program', lambda x: x['code_bytes'])
  row('peak', lambda x: x['peak_bytes'])
  row('there is', lambda _: plan['hbm_bytes'])
  cache = f'{plan["cache_bytes"] / GIB:.2f} GiB'
  return [*lines, '', f'The cache of all slots is {cache} of the results of the rollout.']


def _work_lines(plan) -> list[str]:
  lines = [
    '| each chip, one step | TFLOP | HBM, GB | sent, GB | at its peak, s | collectives, s |',
    '|---|---|---|---|---|---|',
  ]
  work = plan['step']['full']['work']
  fields = ('flops', 'traffic_bytes', 'sent_bytes', 'chip_seconds', 'collective_seconds')
  scale = (1e12, 1e9, 1e9, 1, 1)
  total = {key: sum(x[key] for x in work.values()) for key in fields}
  for name, x in (work | {'all': total}).items():
    cells = (f'{x[key] / s:.2f}' for key, s in zip(fields, scale, strict=True))
    lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
  chip, messages = step_seconds(plan)
  lines += [
    '',
    f'A step takes {max(chip, messages):.1f} s where messages are hidden behind work, '
    f'{chip + messages:.1f} s where none is.',
  ]
  peak = CHIPS[plan['topology'].partition(':')[0]].flops_per_s
  for key, needed in plan['model_flops'].items():
    own = [x for name, x in work.items() if (name == 'update') == (key == 'update')]
    if own:
      seconds = sum(x['chip_seconds'] + x['collective_seconds'] for x in own)
      lines.append(
        f'Model FLOPs of the {key}: {needed / 1e12:.2f} T, {needed / peak / seconds:.2f} of the '
        'peak where no message is hidden.'
      )
  return [*lines, '', *_ratio_lines(plan['step'])]


def _ratio_lines(step) -> list[str]:
  lines = [
    '| each chip, one step | slots per token | HBM, GB | needed | ratio | TFLOP | needed | ratio |',
    '|---|---|---|---|---|---|---|---|',
  ]
  for kind, x in step.items():
    for part, ratio in x['ratios'].items():
      work, needed = x['work'][part], x['needed'][part]
      cells = [f'{x["slots_per_token"][part]:.2f}']
      for key, scale in (('traffic_bytes', 1e9), ('flops', 1e12)):
        cells += [f'{work[key] / scale:.2f}', f'{needed[key] / scale:.2f}', f'{ratio[key]:.2f}']
      lines.append(f'| {part}, {kind} lengths | ' + ' | '.join(cells) + ' |')
  return lines


def _sources(one) -> list[str]:
  lines = ['| kind | axes | times | kB each | ms | source |', '|---|---|---|---|---|---|']
  for x in one['sources']:
    lines.append(
      f'| {x["kind"]} | {x["axes"]} | {x["times"]} | {x["sent_bytes"] / x["times"] / 1e3:.1f} '
      f'| {x["seconds"] * 1e3:.1f} | {x["source"]} |'
    )
  return lines


def _assumptions(plan) -> list[str]:
  chip = CHIPS[plan['topology'].partition(':')[0]]
  return [
    f'Assumed: {chip.flops_per_s / 1e12:.0f} TFLOP/s, {chip.hbm_bytes_per_s / 1e9:.0f} GB/s of '
    f'memory, {chip.link_bytes_per_s / 1e9:.0f} GB/s of a link one way, {HOP_S * 1e6:.0f} us to a '
    'neighbour; but where real lengths are named, every turn takes its whole budget, every row all '
    f'its slots; {plan["instruction_tokens"]} tokens of instruction.',
  ]
