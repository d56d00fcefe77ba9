"""Turns the rows of a comparison into report.json, report.md and a figure."""

import json

from etils import epath
from ml_collections import ConfigDict

from score_jax.replication.figures import COLOURS
from score_jax.replication.tables import COLUMNS
from score_jax.runs.files import write_atomic
from score_jax.runs.metrics import read_metrics


def table(rows: dict[str, dict], kind: str) -> str:
  """Lays rows out like the paper's Table 2, in percent with 95% intervals.

  Args:
    rows: by name, of `report.json`.
    kind: 'greedy' or 'sampled'.

  Returns:
    A Markdown table.
  """
  lines = ['| | ' + ' | '.join(COLUMNS.values()) + ' |', '|---' * (len(COLUMNS) + 1) + '|']
  for name, row in rows.items():
    cells = [
      f'{100 * m["mean"]:.1f} [{100 * m["low"]:.1f}, {100 * m["high"]:.1f}]'
      for m in (row[kind][key] for key in COLUMNS)
    ]
    lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def findings(rows: dict[str, dict]) -> list[str]:
  """Says in words how the rows compare, whichever way it falls.

  Args:
    rows: by name; 'base', 'stage1', 'stage2' and 'multiturn_rl'.

  Returns:
    One sentence for each comparison and way of decoding.
  """
  sentences = []
  for kind in ('greedy', 'sampled'):
    base, one, two, plain = (
      rows[name][kind] for name in ('base', 'stage1', 'stage2', 'multiturn_rl')
    )
    drift = 100 * (one['acc_t1']['mean'] - base['acc_t1']['mean'])
    sentences.append(
      f'{kind}: Stage I moved turn 1 by {drift:+.1f} points and has a delta of '
      f'{100 * one["delta"]["mean"]:+.1f}; Stage II moved turn 1 by '
      f'{100 * (two["acc_t1"]["mean"] - base["acc_t1"]["mean"]):+.1f} and has a delta of '
      f'{100 * two["delta"]["mean"]:+.1f} '
      f'[{100 * two["delta"]["low"]:.1f}, {100 * two["delta"]["high"]:.1f}].'
    )
    for key, what in (('delta', 'delta'), ('changed', 'share of changed answers')):
      apart = plain[key]['high'] < two[key]['low'] or two[key]['high'] < plain[key]['low']
      word = 'smaller' if plain[key]['mean'] < two[key]['mean'] else 'not smaller'
      sentences.append(
        f"{kind}: plain multi-turn RL's {what} ({100 * plain[key]['mean']:.1f}%) is {word} than "
        f"Stage II's ({100 * two[key]['mean']:.1f}%); the intervals "
        f'{"lie apart" if apart else "overlap"}.'
      )
  return sentences


def draw(workdir: epath.Path, names: list[str], path: epath.Path) -> None:
  """Draws both turns' sampled accuracy over training, one panel a run.

  Args:
    workdir: where the run directories lie.
    names: of the runs.
    path: of the PNG.
  """
  import io

  import matplotlib

  matplotlib.use('Agg')
  import matplotlib.pyplot as plt

  figure, axes = plt.subplots(
    1, len(names), figsize=(3.6 * len(names), 3.2), sharey=True, layout='constrained', squeeze=False
  )
  for axis, name in zip(axes[0], names, strict=True):
    records = [r for r in read_metrics(workdir / name) if 'train/reward_t1' in r]
    steps = [r['step'] for r in records]
    for k, (colour, style) in enumerate(zip(COLOURS, ('--', '-'), strict=True)):
      values = [100 * r[f'train/reward_t{k + 1}'] for r in records]
      axis.plot(steps, values, style, color=colour, label=f'turn {k + 1}')
    axis.set(title=name, xlabel='training step', ylim=(0, 100))
    axis.grid(alpha=0.3)
  axes[0][0].set_ylabel('training problems right (%),\nsampled at temperature 1')
  axes[0][0].legend()
  buffer = io.BytesIO()
  figure.savefig(buffer, dpi=150)
  plt.close(figure)
  write_atomic(path, buffer.getvalue())


def write(workdir: epath.Path, config: ConfigDict, rows: dict[str, dict]) -> None:
  """Writes report.json, report.md and training.png.

  Args:
    workdir: where they go.
    config: of the comparison.
    rows: by name.
  """
  draw(workdir, [name for name in rows if name != 'base'], workdir / 'training.png')
  first = next(iter(rows.values()))
  seconds = sum(row['seconds'] for row in rows.values())
  stages = [
    f'- `{row.stage.name}`: {row.num_steps} steps from {row.init or "base"}, reward weights '
    f'{tuple(row.stage.reward_weight)}, bonus {tuple(row.stage.bonus)}, KL weights '
    f'{tuple(row.stage.kl_weight)}'
    for row in config.rows
  ]
  text = '\n\n'.join(
    [
      '# SCoRe on generated sums',
      f'Seed {first["seed"]}, commit {first["commit"]}, {seconds:.0f} s for all rows. '
      f'Held-out problems: {first["num_problems"]}. Percent, with 95% intervals.',
      '\n'.join(stages),
      '## Greedy',
      table(rows, 'greedy'),
      '## Sampled at temperature 1',
      table(rows, 'sampled'),
      '## What this says',
      '\n'.join(f'- {sentence}' for sentence in findings(rows)),
      '![Both turns over training](training.png)',
    ]
  )
  write_atomic(workdir / 'report.md', text + '\n')
  write_atomic(workdir / 'report.json', json.dumps({'rows': rows}, indent=2) + '\n')
