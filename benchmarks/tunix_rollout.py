"""Times two-turn rollouts, ours against google/tunix's sampler doing the same two turns.

    python benchmarks/tunix_rollout.py --peer_env=DIR                          (CPU, SmolLM2-135M)
    python benchmarks/tunix_rollout.py --peer_env=DIR --dtype=bfloat16         (GPU)
    python benchmarks/tunix_rollout.py --peer_env=DIR --dtype=bfloat16 --preset=qwen2_5_1_5b

DIR gets a virtual environment with the peer, once. Where no package index is at hand, bring the
package and name an interpreter that finds it: --peer_python=PYTHON.

The work: prompts of 64 tokens, 64 sampled; then 32 tokens of instruction, 64 sampled. Weights are
random, drawn once and read by both sides from one file. Decoding is greedy, and the end of turn
cannot come: its embedding is zero, so its logit is, and a larger one is always there. So each row
samples every token of its budget, which is checked, and both sides should sample the same ones;
how far they do is printed. Turn 2 of ours goes on in the cache; Tunix's sampler has no such call,
so there it begins with the prefill of all 160 tokens. `tunix_side.py` says what Tunix is given.

Each side is a process of its own, new for each batch. Both roll out once to compile and then in
turn, A B A B. Time: from prompts on the host to tokens on the host. Memory: on CPU, the process's
peak over one rollout, Python and compiler included; else the device's peak since the weights came.
"""

import argparse
import dataclasses
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata

import numpy as np
import sides
import tunix_side

from score_jax.model.decoder_config import DecoderConfig
from score_jax.model.presets import preset

PROMPT, BUDGET, INSTRUCTION = 64, 64, 32
TURNS = [[PROMPT, BUDGET], [PROMPT + BUDGET + INSTRUCTION, BUDGET]]
END = 0  # the token that would end a turn
OURS, THEIRS = 'score_jax', 'tunix'
FIRST = 8  # sampled tokens whose agreement is told by itself

# Without their needs: those of training, TensorFlow Datasets and transformers among them, would
# take gigabytes. What the sampler imports is named instead, with jax and flax as we have them.
PEER = 'google-tunix==0.1.7'
PEER_NEEDS = ('jaxtyping', 'sentencepiece', 'pillow', 'huggingface_hub', 'safetensors<0.8')


def model_config(preset_name: str, is_tiny: bool, dtype: str) -> DecoderConfig:
  """The model that both sides run.

  Tunix's Llama does not read its `rope_theta` but always rotates with base 1e6: so do all here.

  Args:
    preset_name: of `score_jax.model.presets`.
    is_tiny: the same architecture with two narrow layers.
    dtype: of parameters and computation.

  Returns:
    Sizes and choices.
  """
  config = dataclasses.replace(preset(preset_name), rope_base=1e6, dtype=dtype, param_dtype=dtype)
  if not is_tiny:
    return config
  sizes = {'vocab_size': 512, 'num_layers': 2, 'embed_dim': 64, 'mlp_dim': 128}
  return dataclasses.replace(config, **sizes, num_heads=4, num_kv_heads=2, head_dim=16)


def make_peer_env(folder: pathlib.Path) -> pathlib.Path:
  """Installs the peer, unless the folder has it.

  Args:
    folder: of the virtual environment.

  Returns:
    Its interpreter.
  """
  python, is_done = folder / 'bin' / 'python', folder / PEER
  if not is_done.exists():
    installed = {d.metadata['Name'].lower(): d.version for d in metadata.distributions()}
    cuda = [m[1] for name in installed if (m := re.fullmatch(r'jax-(cuda\d+)-plugin', name))]
    extra = f'[{cuda[0]}]' if cuda else ''
    needs = [f'jax{extra}=={installed["jax"]}', f'flax=={installed["flax"]}', *PEER_NEEDS]
    subprocess.run([sys.executable, '-m', 'venv', folder], check=True)
    pip = [python, '-m', 'pip', 'install', '--quiet']
    subprocess.run([*pip, *needs], check=True)
    subprocess.run([*pip, '--no-deps', PEER], check=True)
    is_done.touch()
  return python


@dataclasses.dataclass(frozen=True)
class Result:
  """What one side did with one batch.

  Attributes:
    side: its name.
    batch: its rows.
    tokens_per_s: sampled tokens over seconds, of each repeat.
    peak_bytes: the most of all repeats.
    tokens: of each turn, each row's ids.
  """

  side: str
  batch: int
  tokens_per_s: tuple[float, ...]
  peak_bytes: int
  tokens: list


def check_full(name: str, reply: dict, batch: int) -> None:
  """Raises RuntimeError unless each row sampled its whole budget in each turn."""
  counts = [len(row) for turn in reply['tokens'] for row in turn]
  if counts != [BUDGET] * len(TURNS) * batch:
    raise RuntimeError(f'{name}: {sorted(set(counts))} tokens in a turn, {BUDGET} were to come')


def measure(pair: list[sides.Side], work: dict, repeats: int) -> list[Result]:
  """Lets the sides roll out in turn.

  Args:
    pair: both sides, loaded.
    work: the rollout's request.
    repeats: measured rollouts of each, after one that compiles.

  Returns:
    One result for each side.

  Raises:
    RuntimeError: if a row ended early.
  """
  batch = len(work['prompts']) * work['samples']
  replies = {side.name: [] for side in pair}
  for _ in range(1 + repeats):
    for side in pair:
      reply = side.ask('rollout', **work)
      check_full(side.name, reply, batch)
      replies[side.name].append(reply)
      print(f'batch {batch}: {side.name} {reply["seconds"]:.2f} s', file=sys.stderr, flush=True)
  total = batch * BUDGET * len(TURNS)
  return [
    Result(
      name,
      batch,
      tuple(total / reply['seconds'] for reply in measured),
      max(reply['peak_bytes'] for reply in measured),
      first['tokens'],
    )
    for name, (first, *measured) in replies.items()
  ]


def table(results: list[Result]) -> str:
  """The results as Markdown.

  Args:
    results: of both sides for each batch.

  Returns:
    The table; the ratio is ours over theirs.
  """
  lines = [
    '| side | batch | tokens/s, median (min-max) | peak memory, GB | ratio |',
    '|---|---|---|---|---|',
  ]
  medians = {(r.side, r.batch): statistics.median(r.tokens_per_s) for r in results}
  for r in results:
    ratio = medians[OURS, r.batch] / medians[THEIRS, r.batch] if r.side == OURS else 1.0
    spread = f'{min(r.tokens_per_s):.1f}-{max(r.tokens_per_s):.1f}'
    lines.append(
      f'| {r.side} | {r.batch} | {medians[r.side, r.batch]:.1f} ({spread}) '
      f'| {r.peak_bytes / 1e9:.2f} | {ratio:.2f} |'
    )
  return '\n'.join(lines)


def agreement(ours: list, theirs: list) -> str:
  """How far two sides sampled the same.

  Args:
    ours: of each turn, each row's ids.
    theirs: same.

  Returns:
    A sentence: rows that begin alike, rows that are alike, tokens until the first that differs.
  """
  a, b = (np.concatenate(np.array(side), axis=1) for side in (ours, theirs))
  is_same = a == b
  alike = int(is_same[:, :FIRST].all(axis=1).sum())
  until = np.where(is_same.all(axis=1), a.shape[1], is_same.argmin(axis=1))
  return (
    f'batch {len(a)}: {alike} of {len(a)} rows agree in the first {FIRST} tokens, '
    f'{int((until == a.shape[1]).sum())} in all {a.shape[1]}; '
    f'the median row in the first {statistics.median(until.tolist()):g}.'
  )


def hardware() -> str:
  """Processor, cores and memory of this machine, and the commit that is measured."""
  cpuinfo = pathlib.Path('/proc/cpuinfo')
  names = re.findall(r'model name\s*: (.*)', cpuinfo.read_text()) if cpuinfo.exists() else []
  memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9
  git = ['git', '-C', str(pathlib.Path(__file__).parent), 'describe', '--always', '--dirty']
  commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or 'unknown'
  processor = names[0] if names else platform.machine()
  return f'{processor}, {os.cpu_count()} cores, {memory:.0f} GB; commit {commit}'


def parse_flags() -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  peer = parser.add_mutually_exclusive_group(required=True)
  peer.add_argument('--peer_env', type=pathlib.Path)
  peer.add_argument('--peer_python', type=pathlib.Path)
  parser.add_argument('--preset', default='smollm2_135m')
  parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'))
  parser.add_argument('--batches', type=int, nargs='+', default=[16, 64])
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--samples', type=int, default=1, help='rows that share a prompt')
  parser.add_argument('--tiny', action='store_true', help='two narrow layers: is all in order?')
  return parser.parse_args()


def main() -> None:
  """Draws the weights, runs both sides, prints the table."""
  flags = parse_flags()
  python = flags.peer_python or make_peer_env(flags.peer_env)
  ours = [sys.executable, str(pathlib.Path(__file__).with_name('our_side.py'))]
  theirs = [str(python), tunix_side.__file__]
  config = model_config(flags.preset, flags.tiny, flags.dtype)
  sizes, results, rng = dataclasses.asdict(config), [], np.random.default_rng(1)
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'weights.npz')
    with sides.Side(OURS, ours) as drawer:
      num_bytes = drawer.ask('draw', path=path, sizes=sizes, end=END)['bytes']
    for batch in flags.batches:
      num_prompts, rest = divmod(batch, flags.samples)
      if rest:
        raise SystemExit(f'--batches {batch} is no multiple of --samples {flags.samples}')
      ids = rng.integers(1, config.vocab_size, (num_prompts, PROMPT + INSTRUCTION - 1))
      instruction = [END, *ids[0, PROMPT:].tolist()]
      work = {'prompts': ids[:, :PROMPT].tolist(), 'samples': flags.samples}
      work |= {'instruction': instruction, 'end': END}
      with sides.Side(OURS, ours) as a, sides.Side(THEIRS, theirs) as b:
        for side in (a, b):
          side.ask('load', path=path, dtype=flags.dtype, sizes=sizes, turns=TURNS)
        results += measure([a, b], work, flags.repeats)
        about = {side.name: side.ask('about') for side in (a, b)}
  print(f'{flags.preset}{" (tiny)" if flags.tiny else ""}, {flags.dtype}, ', end='')
  print(f'{num_bytes / 1e9:.2f} GB of weights; {flags.samples} samples of a prompt; {hardware()}')
  for name, facts in about.items():
    print(f'{name}: {facts["versions"]}; {facts["device"]}')
  print(f'\n{table(results)}\n')
  for ours, theirs in zip(results[::2], results[1::2], strict=True):
    print(agreement(ours.tokens, theirs.tokens))


if __name__ == '__main__':
  main()
