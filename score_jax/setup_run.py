"""From a config to the values that a program works with: task, model, stage, optimiser."""

import dataclasses
import logging
from collections.abc import Sequence

import jax
from etils import epath
from ml_collections import ConfigDict

from score_jax.base_model import Base, check_kernel, load_base
from score_jax.core import sharding
from score_jax.core.tokenizers import Tokenizer
from score_jax.model.lora import Lora
from score_jax.objective.stages import Stage
from score_jax.procedures.layout import RolloutSpec
from score_jax.procedures.order import problem_indices
from score_jax.procedures.text import Prompts, encode_prompts
from score_jax.procedures.train_step import StepOptions
from score_jax.task_loader import DATA_FILES, make_task
from score_jax.tasks.base import Task, check_disjoint
from score_jax.trainable import make_lora, policy_params, read_start


def missing_inputs(config: ConfigDict) -> list[str]:
  """Lists every path that the config needs and does not have.

  Args:
    config: a checked config.

  Returns:
    One line for each: what is missing and the flag that sets it; empty if all is there.
  """
  wanted = [('the base model', 'model.checkpoint', config.model.checkpoint, True)]
  if config.task.name in DATA_FILES:
    what = f'the folder with {DATA_FILES[config.task.name]}'
    wanted.append((what, 'data.path', config.data.path, True))
  wanted.append(('the chat template', 'chat.template', config.chat.template, False))
  required = config.init.required
  wanted.append(('the run of the stage before', 'init.path', config.init.path, required))
  lines = []
  for what, key, path, is_required in wanted:
    flag = f'--config.{key}=PATH'
    is_word = path == {'model.checkpoint': 'embedded', 'data.path': 'download'}.get(key)
    if not path and is_required:
      lines.append(f'{what} is not set: {flag}')
    elif path and not is_word and not epath.Path(path).exists():
      lines.append(f'{what}: there is no {path}; set {flag}')
  return lines


@dataclasses.dataclass(frozen=True)
class Setup:
  """Everything that a run works with.

  Attributes:
    config: the run's config.
    mesh: the devices.
    base: the base model.
    lora: the adapters that are trained; None trains all weights.
    task: problems and grader.
    stage: what each turn is paid.
    spec: the episode's static shape.
    prompts: training problems that fit.
  """

  config: ConfigDict
  mesh: jax.sharding.Mesh
  base: Base
  lora: Lora | None
  task: Task
  stage: Stage
  spec: RolloutSpec
  prompts: Prompts

  @property
  def num_adapted(self) -> int:
    """Turns whose KL weights follow a target: K, or 0."""
    return self.stage.num_turns if self.stage.is_adaptive else 0

  def read_start(self) -> dict:
    """Reads what the stage starts from; see `score_jax.trainable.read_start`."""
    return read_start(self.config, self.base)

  def policy_params(self, trainable: dict) -> dict:
    """The decoder's parameters: what is trained, or that beside the base model's."""
    return policy_params(self.base.params, trainable, self.lora)

  def frozen(self, start_params: dict) -> dict:
    """What an update reads and does not change; the arrays that are there, not copies.

    Args:
      start_params: the decoder's parameters before the first update.
    """
    reference = self.base.params if self.stage.reference == 'base' else start_params
    # Without adapters no update needs the base model itself.
    return {'reference': reference, 'base': self.base.params if self.lora else {}}


def prepare(config: ConfigDict) -> Setup:
  """Loads everything that a config names but for the run to start from.

  Args:
    config: a checked config.

  Returns:
    The setup; call `task.close` at the end.

  Raises:
    ValueError: for inputs that are missing or broken, or numbers that do not fit each other.
  """
  mesh = sharding.make_mesh(config.mesh)
  check_batch(config, sharding.batch_rows(mesh))
  stage, lora = make_stage(config), make_lora(config)
  check_offload(config)
  task = make_task(config)
  base = load_base(config, mesh, config.model.offload_reference)
  check_kernel(base.decoder.config, jax.default_backend())
  spec = make_training_spec(config, task, base.tokenizer)
  prompts = encode_prompts(task.train, task, base.tokenizer, config.rollout.prompt_tokens)
  warn_too_long(prompts, 'training', config)
  warn_overlap(task)
  check_problems(config, len(prompts.problems))
  return Setup(config, mesh, base, lora, task, stage, spec, prompts)


def check_batch(config: ConfigDict, num_parts: int) -> None:
  """Checks that the batch divides.

  Args:
    config: a checked config.
    num_parts: devices that the batch is split over.

  Raises:
    ValueError: with the numbers that do not divide.
  """
  traces = config.supervised.batch
  if config.supervised.method and traces % num_parts:
    raise ValueError(
      f'config.supervised.batch={traces} does not divide by {num_parts} devices; take '
      f'{-(-traces // num_parts) * num_parts}'
    )
  P, G = config.rollout.problems_per_step, config.rollout.samples_per_problem
  parts = config.train.micro_batches
  if min(P, G, parts) < 1:
    raise ValueError(
      f'config.rollout.problems_per_step={P}, config.rollout.samples_per_problem={G} and '
      f'config.train.micro_batches={parts} must be at least 1'
    )
  if P * G % (parts * num_parts):
    fewer = [n for n in range(parts, 0, -1) if P * G % (n * num_parts) == 0]
    what = f'micro_batches={fewer[0]}' if fewer else 'other numbers, or fewer devices'
    raise ValueError(
      f'config.rollout.problems_per_step={P} * samples_per_problem={G} = {P * G} episodes in '
      f'config.train.micro_batches={parts} parts do not divide by {num_parts} devices; take {what}'
    )


def check_problems(config: ConfigDict, num_problems: int) -> None:
  """Checks that there are the problems that a run asks for, and that its processes share them.

  Args:
    config: a checked config.
    num_problems: for training, those that fit.

  Raises:
    ValueError: with both numbers.
  """
  wanted = config.supervised.num_problems
  if config.supervised.method and wanted > num_problems:
    raise ValueError(f'config.supervised.num_problems={wanted}, but there are {num_problems}')
  P, process = config.rollout.problems_per_step, (jax.process_index(), jax.process_count())
  problem_indices(config.seed, 0, P, num_problems, *process)


def check_offload(config: ConfigDict) -> None:
  """Checks that the base model is the reference and nothing else, where it leaves the devices.

  Args:
    config: a checked config.

  Raises:
    ValueError: naming what else needs it.
  """
  if not config.model.offload_reference:
    return
  others = {
    f'config.lora.rank={config.lora.rank} adapts it': config.lora.rank > 0,
    f'config.rollout.base_turn1_share={config.rollout.base_turn1_share} samples from it': (
      config.rollout.base_turn1_share > 0
    ),
    f'config.stage.reference={config.stage.reference!r} is another model': (
      config.stage.reference != 'base'
    ),
  }
  for why, is_so in others.items():
    if is_so:
      raise ValueError(
        'config.model.offload_reference=True keeps the base model off the devices, but ' + why
      )


def warn_overlap(task: Task) -> None:
  """Says how many evaluation problems are in the training split too."""
  overlap = check_disjoint(task)
  if overlap:
    test, train = overlap[0]
    logging.warning(
      '%d evaluation problems are in the training split too, first test %d = train %d: %.80r',
      len(overlap),
      test.id,
      train.id,
      test.question,
    )


def warn_too_long(prompts: Prompts, split: str, config: ConfigDict) -> None:
  """Says how many problems were left out because their prompt does not fit."""
  if prompts.num_too_long:
    logging.warning(
      '%d %s problems are left out: their prompts take up to %d tokens and '
      'config.rollout.prompt_tokens=%d; %d remain',
      prompts.num_too_long,
      split,
      prompts.longest,
      config.rollout.prompt_tokens,
      len(prompts.problems),
    )


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
    config: a checked config.
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
    config: a checked config.
    task: gives the instruction.
    tokenizer: gives its ids and the ends of turn.

  Returns:
    The static shape of an episode.

  Raises:
    ValueError: if the stage has another number of turns than there are budgets.
  """
  turn_tokens = tuple(config.rollout.turn_tokens)
  num_turns = len(config.stage.reward_weight)
  if num_turns != len(turn_tokens):
    raise ValueError(
      f'config.rollout.turn_tokens={turn_tokens} has {len(turn_tokens)} turns, '
      f'config.stage.reward_weight has {num_turns}'
    )
  instructions = [task.instruction] * (len(turn_tokens) - 1)
  return make_rollout_spec(config, instructions, tokenizer, turn_tokens)


def make_step_options(config: ConfigDict) -> StepOptions:
  """Reads the static choices of an update."""
  o = config.objective
  return StepOptions(
    samples_per_problem=config.rollout.samples_per_problem,
    micro_batches=config.train.micro_batches,
    baseline=o.baseline,
    kl_estimator=o.kl_estimator,
    kl_credit=o.kl_credit,
    temperature=config.rollout.temperature,
    chunk=config.train.chunk_tokens,
  )
