"""What a run would do, shown before it does it."""

import jax
import numpy as np

from score_jax.core import sharding
from score_jax.objective.stages import Stage
from score_jax.planning.memory import compiled_bytes, count_memory, memory_table
from score_jax.rollout.text import describe_episode
from score_jax.setup.run import Setup
from score_jax.training.experience import Collector, training_sampler


def stage_table(stage: Stage) -> str:
  """Lays out what each turn's tokens are rewarded and penalised for.

  Returns:
    A Markdown table, one row a turn.

  Example:
    >>> from score_jax.objective.stages import stage2
    >>> print(stage_table(stage2(alpha=10.0, beta1=0.01)))
    | turn | reward weight | bonus | KL weight | reference |
    |---|---|---|---|---|
    | 1 | 1 | 0 | 0.01 | base |
    | 2 | 1 | 10 | 0.01 | base |
  """
  lines = ['| turn | reward weight | bonus | KL weight | reference |', '|---|---|---|---|---|']
  for k in range(stage.num_turns):
    lines.append(
      f'| {k + 1} | {stage.reward_weight[k]:g} | {stage.bonus[k]:g} | {stage.kl_weight[k]:g} '
      f'| {stage.reference} |'
    )
  return '\n'.join(lines)


def show(setup: Setup) -> None:
  """Prints the resolved config, the stage, the memory, and one sampled episode with its masks.

  Args:
    setup: from `score_jax.setup.run.prepare`.
  """
  print(setup.config)
  print(f'stage {setup.stage.name}, discount {setup.stage.discount:g}')
  print(stage_table(setup.stage))
  print(memory_table(count_memory(setup), compiled_bytes(setup)))
  for note in setup.base.tokenizer.notes:
    print(f'chat format: {note}')
  # As many rows as the mesh needs, all of one problem; the first is shown.
  sampler = training_sampler(setup, setup.base.params)
  rows = sharding.batch_rows(setup.mesh) // jax.process_count()
  collector = Collector(sampler, setup.prompts, setup.task, samples_per_problem=rows)
  with jax.sharding.set_mesh(setup.mesh):
    params = sharding.on_devices(setup.trainable.policy_params(setup.read_start()))
    experience = collector.collect(params, 1, np.asarray([0]))
  problem = experience.problems[0]
  print(f'\none episode of problem {problem.id}: {problem.question!r}, answer {problem.answer!r}')
  print(describe_episode(experience.episode, 0, setup.base.tokenizer))
  for k, verdicts in enumerate(experience.verdicts):
    v = verdicts[0]
    print(f'turn {k + 1}: reward {v.reward:g} ({v.reason}), text {experience.texts[k][0]!r}')
