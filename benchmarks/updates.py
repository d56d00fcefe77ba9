"""An update on random rows, for the benchmarks that time it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import random_params

from score_jax.core.types import Batch, Episode, TrainState
from score_jax.model.decoder import Decoder
from score_jax.model.decoder_config import DecoderConfig
from score_jax.objective.stages import StageArrays, stage2
from score_jax.training.packing import pack_episodes
from score_jax.training.train_step import StepOptions, forward, make_train_step


def make_batch(
  config: DecoderConfig, rows: int, length: int, prompt_tokens: int, micro_batches: int = 1
) -> Batch:
  """Rows without holes, an episode each: a prompt, and two answers of half of the rest each."""
  rng = np.random.default_rng(0)
  shape = (rows, length)
  turn_T = np.zeros(length, np.int32)
  turn_T[prompt_tokens:] = 1
  turn_T[(prompt_tokens + length) // 2 :] = 2
  episode = Episode(
    tokens=rng.integers(config.vocab_size, size=shape).astype(np.int32),
    positions=np.broadcast_to(np.arange(length, dtype=np.int32), shape),
    is_token=np.ones(shape, bool),
    turn=np.broadcast_to(turn_T, shape),
    is_sampled=np.broadcast_to(turn_T > 0, shape),
    sampled_logp=np.zeros(shape, np.float32),
    is_truncated=np.zeros((rows, 2), bool),
  )
  reward_BK = rng.integers(2, size=(rows, 2)).astype(np.float32)
  batch = pack_episodes(episode, reward_BK, length, rows // micro_batches)
  return jax.tree.map(jnp.asarray, batch)


def ragged_episodes(
  config: DecoderConfig, prompts: list[int], lengths: list[list[int]], between: int
) -> tuple[Episode, np.ndarray]:
  """Episodes of random tokens: a prompt and answers of given lengths, holes behind them.

  Args:
    config: of the model.
    prompts: tokens of each row's prompt.
    lengths: of each turn, the tokens of each row's answer.
    between: tokens between two answers.

  Returns:
    The episodes, and f32[B, K] rewards.
  """
  rows, rng = [], np.random.default_rng(0)
  for prompt, *answers in zip(prompts, *lengths, strict=True):
    pieces = [np.zeros(prompt, np.int32)]
    for k, length in enumerate(answers):
      pieces += [np.zeros(between if k else 0, np.int32), np.full(length, k + 1, np.int32)]
    rows.append(np.concatenate(pieces))
  shape = (len(rows), max(map(len, rows)))
  is_token = np.arange(shape[1]) < np.array([len(row) for row in rows])[:, None]
  turn = np.zeros(shape, np.int32)
  turn[is_token] = np.concatenate(rows)
  episode = Episode(
    tokens=rng.integers(config.vocab_size, size=shape).astype(np.int32),
    positions=np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape),
    is_token=is_token,
    turn=turn,
    is_sampled=turn > 0,
    sampled_logp=np.zeros(shape, np.float32),
    is_truncated=np.zeros((len(rows), len(lengths)), bool),
  )
  return episode, rng.integers(2, size=(len(rows), len(lengths))).astype(np.float32)


@dataclasses.dataclass
class Update:
  """A compiled update, and the state that it moves on from.

  Attributes:
    program: (state, frozen, batch, stage) -> (state, metrics).
    state: float32 weights and Adam's moments.
    arguments: the reference, in the type that is computed in; the batch; the stage.
  """

  program: jax.stages.Compiled
  state: TrainState
  arguments: tuple

  def __call__(self) -> TrainState:
    """Makes one update."""
    self.state, _ = self.program(self.state, *self.arguments)
    return self.state


def make_update(config: DecoderConfig, batch: Batch, chunk: int) -> Update:
  """Compiles the update of Stage II with Adam and clipping, on one device."""
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-5))
  decoder = Decoder(config)
  step = make_train_step(
    policy=lambda trainable, frozen, rows: forward(decoder, trainable, rows),
    reference=lambda frozen, rows: forward(decoder, frozen, rows),
    optimizer=optimizer,
    options=StepOptions(1, baseline='none', chunk=chunk),
  )
  params = random_params(dataclasses.replace(config, param_dtype='float32'))
  state = TrainState(jnp.int32(0), params, optimizer.init(params))
  reference = random_params(dataclasses.replace(config, param_dtype=config.dtype), seed=1)
  arguments = (reference, batch, StageArrays.of(stage2(10.0, 0.01)))
  return Update(step.lower(state, *arguments).compile(), state, arguments)
