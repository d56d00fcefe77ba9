"""Pretraining of the small base policy: tokenizer, examples, loop, weights folder."""

import io

import jax
import numpy as np
import optax
from etils import epath
from ml_collections import ConfigDict
from tqdm import tqdm

from score_jax.formats.weights_folder import save_weights
from score_jax.model.decoder import Decoder, DecoderConfig, init_params
from score_jax.runs.files import write_atomic
from score_jax.setup.trainable import first_state
from score_jax.tasks.arithmetic import INSTRUCTION, read_levels
from score_jax.tasks.mixture import HABITS, Example, Mixture, draw_example
from score_jax.tokenizers.base import SentencePieceTokenizer, Tokenizer
from score_jax.training.loop import TrainingStopped, fetch
from score_jax.training.supervised import TraceBatch, make_supervised_step, unpacked
from score_jax.training.train_step import forward

ROUNDED_TO = 8  # [tokens] a batch's length, so that few lengths are compiled


def train_tokenizer() -> bytes:
  """Trains the SentencePiece model: one piece for each number, with and without a sign.

  Returns:
    The serialised model.
  """
  import sentencepiece

  digits = [str(n) for n in range(10)]
  signed = [f'{sign}{d}' for sign in '+-' for d in digits[1:]]
  words = [*digits, *signed, '?', '=', INSTRUCTION]
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(words),
    model_writer=model,
    model_type='word',
    vocab_size=len(words) + 3,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    normalization_rule_name='identity',
    minloglevel=2,
  )
  return model.getvalue()


def encode_example(
  example: Example, tokenizer: Tokenizer, first_turn_tokens: int
) -> tuple[list[int], list[bool]]:
  """Lays an example out as the rollout would.

  Both answers are trained with their ends, but for the wrong beginning of a first one. A first
  answer that does not fit its budget is cut and its end appended, as the sampler does; the appended
  end is not trained.

  Args:
    example: of two turns.
    tokenizer: makes ids.
    first_turn_tokens: budget of turn 1.

  Returns:
    Token ids, and which of them are trained.
  """
  end = tokenizer.end_of_turn_ids[0]
  prompt = tokenizer.prompt_ids(example.question)
  wrong = tokenizer.encode(example.wrong)
  first = wrong + tokenizer.encode(example.first) + [end]
  is_first = [i >= len(wrong) for i in range(len(first))]
  if len(first) > first_turn_tokens:
    first = first[:first_turn_tokens] + [end]
    is_first = is_first[:first_turn_tokens] + [False]
  followup = tokenizer.followup_ids(INSTRUCTION)
  second = tokenizer.encode(example.second) + [end]
  ids = prompt + first + followup + second
  is_target = [False] * len(prompt) + is_first + [False] * len(followup) + [True] * len(second)
  return ids, is_target


def draw_batch(
  rng: np.random.Generator,
  mixture: Mixture,
  tokenizer: Tokenizer,
  num_rows: int,
  first_turn_tokens: int,
  length: int,
) -> TraceBatch:
  """Draws a batch of examples.

  Args:
    rng: source of randomness.
    mixture: what to draw.
    tokenizer: makes ids.
    num_rows: B.
    first_turn_tokens: budget of turn 1.
    length: tokens that an example may take.

  Returns:
    The batch, on the host, cut to its longest example and rounded up to `ROUNDED_TO`.

  Raises:
    ValueError: if an example is longer than `length`.
  """
  tokens = np.zeros((num_rows, length), np.int32)
  is_token = np.zeros((num_rows, length), bool)
  is_target = np.zeros((num_rows, length), bool)
  for b in range(num_rows):
    ids, row_is_target = encode_example(draw_example(rng, mixture), tokenizer, first_turn_tokens)
    if len(ids) > length:
      raise ValueError(f'config.length={length} is too short for an example of {len(ids)} tokens')
    tokens[b, : len(ids)] = ids
    is_token[b, : len(ids)] = True
    is_target[b, : len(ids)] = row_is_target
  longest = -(-int(is_token.sum(1).max()) // ROUNDED_TO) * ROUNDED_TO
  return unpacked(tokens[:, :longest], is_token[:, :longest], is_target[:, :longest])


def describe_mixture(phases: list[tuple[int, Mixture]], batch: int) -> str:
  """Says in numbers what the policy is pretrained on.

  Args:
    phases: (steps, mixture) in order.
    batch: examples a step.

  Returns:
    A Markdown table, a row for each phase, without the habits that none has.
  """
  habits = {name: text for name, text in HABITS.items() if any(getattr(m, name) for _, m in phases)}
  heads = ['examples', 'terms (share)', 'right at turn 1 up to', *habits.values()]
  lines = ['| ' + ' | '.join(heads) + ' |', '|---' * len(heads) + '|']
  for steps, m in phases:
    total = sum(m.level_weights.values())
    levels = ', '.join(f'{n} ({w / total:.0%})' for n, w in sorted(m.level_weights.items()))
    cells = [f'{steps * batch:,}', levels, f'{m.known_terms} terms']
    cells += [f'{getattr(m, name):.1%}' for name in habits]
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def pretrain(config: ConfigDict, decoder: Decoder, tokenizer: Tokenizer) -> dict:
  """Trains on the phases' mixtures, in order.

  Args:
    config: of `configs/pretrain_arithmetic.py`.
    decoder: the model.
    tokenizer: makes ids.

  Returns:
    The parameters.

  Raises:
    ValueError: for a warm-up that is not over before the last update.
    TrainingStopped: if loss, gradient or parameters are not finite.
  """
  phases = phases_of(config)
  total = sum(steps for steps, _ in phases)
  if config.warmup_steps >= total:
    raise ValueError(
      f'config.warmup_steps={config.warmup_steps} must be below the {total} updates of the phases'
    )
  rate = optax.warmup_cosine_decay_schedule(
    0.0, config.learning_rate, config.warmup_steps, total, config.learning_rate / 20
  )
  optimizer = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.98, weight_decay=0.01)
  )
  params = init_params(decoder.config, jax.random.key(config.seed))
  state = first_state(optimizer, params)

  def policy(params, frozen, traces):
    del frozen  # all weights are trained
    return forward(decoder, params, traces)

  step = make_supervised_step(policy, optimizer, chunk=config.length)
  rng = np.random.default_rng(config.seed)
  mixtures = [mixture for steps, mixture in phases for _ in range(steps)]
  with tqdm(total=total, desc='pretrain') as bar:
    for i, mixture in enumerate(mixtures, start=1):
      batch = draw_batch(
        rng, mixture, tokenizer, config.batch, config.first_turn_tokens, config.length
      )
      state, metrics = step(state, {}, batch)
      if i % 50 == 0 or i == total:  # to look is to wait for the device
        values = fetch(metrics)
        done = int(state.step)  # an update that was not applied was not counted either
        if not values['train/is_finite'] or done < i:
          raise TrainingStopped(
            f'after {done} of {total} updates loss, gradient or parameters were not finite. '
            'Nothing is saved; try a lower config.learning_rate'
          )
        bar.set_postfix_str(f'loss={values["train/loss_nats"]:.3f} nats')
      bar.update()
  return state.trainable


def phases_of(config: ConfigDict) -> list[tuple[int, Mixture]]:
  """Reads all phases of a config: (steps, mixture) in order, see `mixture_of`."""
  mixtures = [mixture_of(phase, config) for phase in config.phases]
  return [(phase.steps, m) for phase, m in zip(config.phases, mixtures, strict=True)]


def mixture_of(phase: ConfigDict, config: ConfigDict) -> Mixture:
  """Reads one phase's mixture.

  Args:
    phase: its habits, and how many steps it takes; `level_weights` and `known_terms` where they are
      not those of all phases.
    config: of `configs/pretrain_arithmetic.py`.

  Returns:
    The mixture.

  Raises:
    ValueError: for what a phase lacks, for a habit that there is not, or for one that is no share.
  """
  needed = ('steps', 'level_weights', 'known_terms')
  own = {name: config[name] for name in needed[1:] if name in config} | dict(phase.items())
  if lacks := [name for name in needed if name not in own]:
    raise ValueError(f'config.phases: a phase lacks {", ".join(lacks)}')
  if unknown := sorted(own.keys() - {*needed, *HABITS}):
    raise ValueError(
      f'config.phases: {", ".join(unknown)}: there is no such habit, only {", ".join(HABITS)}'
    )
  for name in sorted(own.keys() - {'level_weights'}):
    if not isinstance(own[name], int | float):
      raise ValueError(f'config.phases: {name}={own[name]} must be a number')
  if not isinstance(steps := own.pop('steps'), int) or steps < 1:
    raise ValueError(f'config.phases: steps={steps} must be a whole number from 1 on')
  own['level_weights'] = read_levels(own['level_weights'], 'config.level_weights')
  return Mixture(**own)


def make_base(config: ConfigDict, folder: epath.PathLike) -> int:
  """Trains tokenizer and policy, and writes both as a weights folder.

  Args:
    config: of `configs/pretrain_arithmetic.py`.
    folder: where they go.

  Returns:
    How many parameters the policy has.
  """
  tokenizer_model = train_tokenizer()
  tokenizer_path = epath.Path(folder) / 'tokenizer.model'
  write_atomic(tokenizer_path, tokenizer_model)
  tokenizer = SentencePieceTokenizer(tokenizer_path)
  decoder = DecoderConfig(vocab_size=tokenizer.vocab_size, **config.model.to_dict())
  params = pretrain(config, Decoder(decoder), tokenizer)
  save_weights(folder, decoder, params, tokenizer_model)
  return sum(x.size for x in jax.tree.leaves(params))
