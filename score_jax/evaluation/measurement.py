"""What the figures of an evaluation depend on, so that no two are taken for one another."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping

from etils import epath

from score_jax.rollout.sampler import Sampler
from score_jax.rollout.text import Prompts
from score_jax.runs.files import read_json, to_plain
from score_jax.runs.identity import config_differences, flatten_config, is_under
from score_jax.setup.policy import Policy
from score_jax.setup.trainable import params_checksum

# The config's keys that change an answer or its verdict, each with everything under it. The others
# are for training, or for how fast an evaluation goes.
_MEASURED = ('task', 'data', 'grader', 'chat', 'eval', 'model.dtype', 'model.param_dtype')
# What these say is in the measurement itself: the problems with their token ids, and their number.
_TOLD_OTHERWISE = (
  'data.path',
  'data.cache',
  'grader.num_workers',
  'grader.allow_unsandboxed',
  'chat.template',
  'eval.batch',
  'eval.num_problems',
  'eval.temperature',
)


def what_it_depends_on(policy: Policy, sampler: Sampler, prompts: Prompts, **more) -> dict:
  """Says what an evaluation is of.

  Args:
    policy: what is evaluated; its config says how answers are graded.
    sampler: how it is sampled.
    prompts: the problems.
    **more: what else matters, such as where forced first answers come from.

  Returns:
    Plain values by name, the same on every mesh: a checksum of the parameters and one of the
    problems with their reference answers and token ids, budgets, instructions, how it is sampled,
    and the config's keys that answers or verdicts depend on.
  """
  problems = [(p.id, p.question, p.answer, p.attempt) for p in prompts.problems]
  config = {
    key: value
    for key, value in flatten_config(policy.config.to_dict()).items()
    if is_under(key, _MEASURED) and not is_under(key, _TOLD_OTHERWISE)
  }
  return to_plain(
    {
      'parameters': params_checksum(policy.params),
      'problems': _digest((problems, prompts.ids), 8),
      'num_problems': len(problems),
      'temperature': float(sampler.temperature),
      'seed': sampler.seed,
      'episode': dataclasses.asdict(sampler.spec),
      'config': config,
      **more,
    }
  )


def name_of(measurement: Mapping) -> str:
  """Eight letters and digits for a folder's name, others for each other measurement."""
  return _digest(json.dumps(measurement, sort_keys=True), 4)


def _digest(value, size: int) -> str:
  return hashlib.blake2s(repr(value).encode(), digest_size=size).hexdigest()


def check_folder(folder: epath.PathLike, measurement: Mapping) -> None:
  """Makes sure that a folder holds no evaluation, or one of the same measurement.

  Args:
    folder: to write to.
    measurement: from `what_it_depends_on`.

  Raises:
    ValueError: with what differs.
  """
  path = epath.Path(folder) / 'metrics.json'
  if not path.exists():
    return
  there = read_json(path, 'choose another --workdir').get('measurement')
  if there is None:
    raise ValueError(
      f'{path} does not say what it depends on (an earlier version wrote it): move it away, or '
      'choose another --workdir'
    )
  differences = config_differences(there, measurement)
  if differences:
    lines = '\n'.join(f'  {key}: {was} there, {now} now' for key, (was, now) in differences.items())
    raise ValueError(
      f'{folder} holds another evaluation, which is kept:\n{lines}\nChoose another --workdir'
    )
