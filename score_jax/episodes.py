"""Makes a page to read a run's episodes: `python -m score_jax.episodes --run=runs/stage2`.

The page holds the episodes that training saved and the records of every evaluation in the run
directory, both answers side by side with the differences marked. It is one HTML file that opens
from the disk, without a server and without a network: --output, by default episodes.html in the
run directory.
"""

from absl import flags
from etils import epath

from score_jax.cli import program
from score_jax.cli.run_input import RUN
from score_jax.runs.episodes import (
  choose,
  describe,
  missing_records,
  read_sources,
)
from score_jax.runs.episodes_page import page
from score_jax.runs.files import write_atomic

_OUTPUT = flags.DEFINE_string('output', None, 'HTML file; episodes.html in --run by default.')
_LIMIT = flags.DEFINE_integer(
  'limit', 2000, 'Show this many episodes at most, shared among the sources; 0 shows all.'
)


def _no_episodes(run: epath.Path) -> str:
  """Why there is nothing to show, and where there may be something."""
  message = f'--run={run} holds no episodes: neither episodes/*.jsonl nor eval_*/records.jsonl'
  inside = [
    path.parent.parent
    for pattern in ('episodes/*.jsonl', 'eval_*/records.jsonl')
    for depth in ('*/', '*/*/')
    for path in run.glob(depth + pattern)
  ]
  if inside:
    return message + '; these do:\n  ' + '\n  '.join(sorted({str(path) for path in inside}))
  return message + '; a run saves some every config.train.episodes_every_steps'


def _body() -> None:
  run, limit = RUN.value, _LIMIT.value
  if not run:
    program.fail('--run is not set: the run directory, for example --run=runs/stage2')
  run = epath.Path(run)
  if not run.is_dir():
    program.fail(f'--run={run} is not a directory')
  if limit < 0:
    program.fail(f'--limit={limit} is below 0; 0 shows all episodes')
  sources = read_sources(run)
  lost = [f'Not shown: {text}.' for text in missing_records(run) if f'{run / "episodes"}' in text]
  if not sources:
    program.fail('\n'.join([_no_episodes(run), *lost]))
  episodes, notes = choose(sources, limit)
  notes += lost
  output = epath.Path(_OUTPUT.value) if _OUTPUT.value else run / 'episodes.html'
  write_atomic(output, page(episodes, f'Episodes of {run}', describe(run) + notes))
  print('\n'.join([*notes, f'{len(episodes):,} episodes in {output}']))


if __name__ == '__main__':
  program.run_program(_body, 'run')
