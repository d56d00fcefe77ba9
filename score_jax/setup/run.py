"""From a config to the values that a program works with: task, model, stage, optimiser."""

import dataclasses
import hashlib
from collections.abc import Sequence

import jax
import optax
from etils import epath
from ml_collections import ConfigDict

from score_jax.core import sharding
from score_jax.core.config import NOT_IDENTITY
from score_jax.core.types import TrainState
from score_jax.model.decoder_config import DecoderConfig
from score_jax.objective.stages import Stage
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.text import Prompts, encode_prompts
from score_jax.runs.files import check_writable
from score_jax.runs.identity import check_identity
from score_jax.setup.base_model import Base, BaseWeights, check_kernel, load_base, read_header
from score_jax.setup.checks import (
  check_batch,
  check_offload,
  check_problems,
  check_turns,
  check_update,
  warn_overlap,
  warn_too_long,
)
from score_jax.setup.task import make_task
from score_jax.setup.trainable import Trainable, make_lora
from score_jax.tasks.base import Task
from score_jax.tokenizers.base import Tokenizer


@dataclasses.dataclass(frozen=True)
class PlannedRun:
  """What the programs of a run are made of: enough to compile them and to count what they take.

  Attributes:
    config: the run's config.
    trainable: the base model, and what is trained of it.
    stage: the reward of each turn, and what keeps the policy near the reference.
    spec: the episode's static shape.
  """

  config: ConfigDict
  trainable: Trainable
  stage: Stage
  spec: RolloutSpec

  @property
  def base(self) -> Base | BaseWeights:
    """The base model."""
    return self.trainable.base

  @property
  def mesh(self) -> jax.sharding.Mesh:
    """The devices."""
    return self.base.mesh

  @property
  def num_adapted(self) -> int:
    """Turns whose KL weights follow a target: K, or 0."""
    return self.stage.num_turns if self.stage.is_adaptive else 0

  def abstract_state(self, optimizer: optax.GradientTransformation) -> TrainState:
    """Shapes and places of the training state."""
    return self.trainable.abstract_state(optimizer, self.num_adapted)

  def frozen(self, start_params: dict) -> dict:
    """What an update reads and does not change; the arrays that are there, not copies.

    Args:
      start_params: the decoder's parameters before the first update.
    """
    reference = self.base.params if self.stage.reference == 'base' else start_params
    return {'reference': reference, 'base': self.trainable.frozen_base}


@dataclasses.dataclass(frozen=True)
class Setup(PlannedRun):
  """Everything that a run works with.

  Attributes:
    task: problems and grader.
    prompts: training problems that fit.
  """

  task: Task
  prompts: Prompts

  def read_start(self) -> dict:
    """Reads what the stage starts from; see `Trainable.read_start`."""
    return self.trainable.read_start(self.config)


def prepare(config: ConfigDict, workdir: epath.PathLike | None = None) -> Setup:
  """Loads everything that a config names but for the run to start from.

  The weights come last: whatever can be refused without them is refused before.

  Args:
    workdir: the run directory, where there will be one; nothing is written to it.

  Returns:
    The setup; call `task.close` at the end.

  Raises:
    ValueError: for inputs that are missing or broken, numbers that do not fit each other, or a run
      directory of another run.
  """
  mesh = sharding.make_mesh(config.mesh)
  check_batch(config, sharding.batch_rows(mesh))
  stage, lora = make_stage(config), make_lora(config)  # refused before anything is loaded
  check_offload(config)
  check_update(config)
  check_turns(config)
  if workdir is not None and jax.process_count() == 1:  # several compare what they see of it
    check_writable(workdir)
  task = make_task(config)
  header = read_header(config)
  check_kernel(header.decoder, jax.default_backend())
  planned = Trainable(header.without_weights(mesh), lora)
  planned.shardings()  # refused where the mesh does not divide the model
  planned.check_start(config)
  spec = make_training_spec(config, task, header.tokenizer)
  prompts = encode_prompts(task.train, task, header.tokenizer, config.rollout.prompt_tokens)
  check_problems(config, len(prompts.problems))
  if workdir is not None:
    content = input_checksums(header.decoder, prompts, spec)
    check_identity(workdir, config.to_dict() | {'content': content}, NOT_IDENTITY + OF_WEIGHTS)
  warn_too_long(prompts, 'training', config)
  warn_overlap(task)
  base = load_base(config, mesh, config.model.offload_reference, header)
  return Setup(config, Trainable(base, lora), stage, spec, task, prompts)


# Checksums of a run's content that are not known before its weights are read.
OF_WEIGHTS = ('content.base', 'content.start')


def input_checksums(decoder: DecoderConfig, prompts: Prompts, spec: RolloutSpec) -> dict[str, str]:
  """Names what a run is made from, as far as it is known before its weights are read.

  Args:
    decoder: the sizes.
    prompts: the training problems.
    spec: the episode's shape.

  Returns:
    Checksums of sizes, and of training problems with their token ids (which tell of another
    tokenizer or chat template).
  """

  def of_text(text):
    return hashlib.blake2s(text.encode(), digest_size=8).hexdigest()

  # How it is computed may change between two starts, what is computed may not.
  sizes = dataclasses.replace(decoder, dtype='float32', remat='none')
  sizes = dataclasses.replace(sizes, param_dtype='float32', scan_unroll=1, attention='plain')
  problems = [(p.id, p.question, p.answer) for p in prompts.problems]
  return {
    'decoder': of_text(repr(sizes)),
    'problems': of_text(repr((problems, prompts.ids, spec))),
  }


def make_stage(config: ConfigDict) -> Stage:
  """Reads the stage."""
  s = config.stage
  return Stage(
    name=s.name,
    reward_weight=tuple(s.reward_weight),
    kl_weight=tuple(s.kl_weight),
    bonus=tuple(s.bonus),
    reference=s.reference,
    discount=s.discount,
    kl_target_nats=tuple(s.kl_target_nats),
  )


def make_rollout_spec(
  config: ConfigDict, instructions: Sequence[str], tokenizer: Tokenizer, turn_tokens: Sequence[int]
) -> RolloutSpec:
  """Lays out an episode.

  Args:
    instructions: what is said before each turn but the first.
    tokenizer: gives their ids and the ends of turn.
    turn_tokens: budget of each turn.

  Returns:
    The static shape of an episode.
  """
  return RolloutSpec(
    prompt_tokens=config.rollout.prompt_tokens,
    turn_tokens=tuple(turn_tokens),
    followup_ids=tuple(tuple(tokenizer.followup_ids(text)) for text in instructions),
    end_of_turn_ids=tuple(tokenizer.end_of_turn_ids),
  )


def make_training_spec(config: ConfigDict, task: Task, tokenizer: Tokenizer) -> RolloutSpec:
  """Lays out an episode of training.

  Args:
    task: gives the instruction.
    tokenizer: gives its ids and the ends of turn.

  Returns:
    The static shape of an episode.

  Raises:
    ValueError: if the stage has another number of turns than there are budgets.
  """
  check_turns(config)
  turn_tokens = tuple(config.rollout.turn_tokens)
  instructions = [task.instruction] * (len(turn_tokens) - 1)
  return make_rollout_spec(config, instructions, tokenizer, turn_tokens)
