"""The config of a run: every key, its default and its unit, in one place.

A config file returns `default_config()` with some values changed. `check_config` refuses a key
that is not here and a value of another type, so a misspelt key cannot be silently ignored.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

# What may change between two starts of the same run: the mathematics stays, rounding apart.
NOT_IDENTITY = (
  'mesh',
  'train.num_steps',
  'train.checkpoint_every_steps',
  'train.keep_last',
  'train.episodes_every_steps',
  'train.num_saved_problems',
  'train.progress',
  'train.micro_batches',
  'train.chunk_tokens',
  'train.length_bucket',
  'model.remat',
  'model.scan_unroll',
  'model.offload_reference',
  'train.max_logp_gap_nats',
  # What these paths hold is compared by its checksum instead.
  'data.path',
  'data.cache',
  'model.checkpoint',
  'chat.template',
  'init.path',
  'grader.num_workers',
  'grader.allow_unsandboxed',
  'eval',
)


POSITIVE = (
  'rollout.problems_per_step',
  'rollout.samples_per_problem',
  'rollout.prompt_tokens',
  'train.num_steps',
  'train.micro_batches',
  'train.chunk_tokens',
  'train.length_bucket',
  'train.checkpoint_every_steps',
  'train.keep_last',
  'train.episodes_every_steps',
  'eval.batch',
  'grader.num_workers',
  'grader.memory_bytes',
)


def default_config() -> ConfigDict:
  """Makes the config with every default.

  Returns:
    A ConfigDict. Lengths are in tokens, rates in 1/update, fractions not percent.
  """
  c = ConfigDict()
  c.seed = 0  # root of every random number of the run
  c.mesh = (-1, 1, 1)  # devices along data, fsdp, tensor; -1 takes what is left

  _add_model(c)
  c.init = ConfigDict()
  c.init.path = ''  # run to start from (Stage I's, for Stage II); '' starts from the base model
  c.init.required = False  # whether the config makes no sense without it
  c.init.which = 'best'  # 'best' by training reward, or 'latest'

  c.task = ConfigDict()
  # 'arithmetic', 'sums', 'math', 'gsm8k', 'mbpp', 'humaneval' (for evaluation only), or a task of
  # your own, 'module:function'.
  c.task.name = 'arithmetic'
  c.task.num_train = 20_000  # generated tasks: training problems
  c.task.num_test = 1024  # generated tasks: evaluation problems
  c.task.seed = 0  # generated tasks: of the problems, apart from the run's seed
  c.task.level_weights = ConfigDict()  # arithmetic: frequency of each number of terms
  c.task.low = 2  # sums: smallest addend
  c.task.high = 20  # sums: largest addend

  c.data = ConfigDict()
  c.data.path = ''  # folder that holds math/train.jsonl and so on; 'download' fetches the files
  c.data.cache = ''  # folder for downloads and prepared data; '' takes ~/.cache/score_jax
  c.data.drop_overlap = True  # leave out training problems that are evaluation problems too

  c.grader = ConfigDict()
  c.grader.num_workers = 2  # processes that check answers
  c.grader.timeout_s = 5.0  # seconds an answer may take
  c.grader.memory_bytes = 1 << 29  # of the process that runs a program
  c.grader.allow_unsandboxed = False  # run programs where nothing isolates them: trusted ones only

  c.stage = ConfigDict()  # see score_jax.objective.stages.Stage
  c.stage.name = ''
  c.stage.reward_weight = (0.0,)
  c.stage.kl_weight = (0.0,)
  c.stage.bonus = (0.0,)
  c.stage.reference = 'base'
  c.stage.discount = 0.0

  _add_procedure(c)
  c.eval = ConfigDict()
  c.eval.num_problems = 0  # evaluation problems; 0 takes all
  c.eval.batch = 512  # episodes sampled at once
  c.eval.temperature = 0.0  # 0 is greedy
  c.eval.top_k = 0  # most likely tokens to sample from; 0 takes all, as training always does
  c.eval.top_p = 1.0  # probability to sample from; 1 takes all
  return c


def _add_model(c: ConfigDict) -> None:
  """Adds the base model, its chat format, and what of it is trained."""
  c.model = ConfigDict()
  c.model.preset = ''  # a name of score_jax.model.presets; '' takes what the checkpoint says
  # Base model: 'embedded', a Hugging Face folder, a .gguf file, an Orbax checkpoint of Gemma, or a
  # weights folder.
  c.model.checkpoint = ''
  c.model.dtype = 'float32'  # compute type, 'float32' or 'bfloat16'
  # Type the base model's weights are kept in, 'float32' or 'bfloat16': the reference's, and those
  # beside adapters. What is trained is float32 always.
  c.model.param_dtype = 'float32'
  c.model.offload_reference = False  # keep the reference in the host's memory between updates
  c.model.remat = 'none'  # 'none', 'block' or 'dots'
  c.model.scan_unroll = 1  # layers compiled at once

  c.chat = ConfigDict()  # how a model's own chat template is rendered; see docs/tokenizers.md
  c.chat.template = ''  # file of a jinja2 template to use in place of the model's own
  c.chat.date = '2024-07-26'  # the day that a template is told which asks for today's
  c.chat.options = ConfigDict()  # more variables for the template, such as enable_thinking

  c.lora = ConfigDict()  # see score_jax.model.lora
  c.lora.rank = 0  # columns of the adapters; 0 trains all weights
  c.lora.alpha = 32.0  # what adapters add is multiplied by alpha / rank
  c.lora.targets = ('q', 'k', 'v', 'o', 'gate', 'up', 'down')  # weights that get adapters


def _add_procedure(c: ConfigDict) -> None:
  """Adds what an update is made of."""
  c.objective = ConfigDict()
  c.objective.baseline = 'rloo'  # 'rloo', 'rloo_given_r1' or 'none'
  c.objective.kl_estimator = 'exact'  # 'exact', 'k1_reward' or 'k2'
  c.objective.kl_credit = 'turn'  # 'turn' or 'token'

  c.rollout = ConfigDict()
  c.rollout.problems_per_step = 64  # P; batch size is P * G episodes
  c.rollout.samples_per_problem = 8  # G; not stated in the paper
  c.rollout.prompt_tokens = 16  # slots of the prompt; longer problems are left out and counted
  c.rollout.turn_tokens = (16, 16)  # budget of each turn, its end included
  c.rollout.temperature = 1.0
  c.rollout.base_turn1 = False  # take turn 1 from the base model, as context only

  c.optimizer = ConfigDict()
  c.optimizer.learning_rate = 5e-6
  c.optimizer.schedule = 'constant'  # 'constant' or 'cosine' (to 0 at decay_steps)
  c.optimizer.decay_steps = 0  # 'cosine': the update at which the rate reaches 0
  c.optimizer.warmup_steps = 0
  c.optimizer.b1 = 0.9
  c.optimizer.b2 = 0.999
  c.optimizer.eps = 1e-8
  c.optimizer.mu_dtype = 'float32'  # type of Adam's first moment, or 'bfloat16'
  c.optimizer.weight_decay = 0.0
  c.optimizer.clip_norm = 1.0  # of the global gradient; 0 does not clip

  c.train = ConfigDict()
  c.train.num_steps = 100
  c.train.micro_batches = 1  # parts of the batch, one after the other; saves memory
  c.train.chunk_tokens = 128  # query positions whose logits exist at once
  c.train.length_bucket = 64  # rows are padded to a multiple of this many tokens
  c.train.max_logp_gap_nats = 0.05  # largest mean gap of sampler and scorer; more stops the run
  c.train.checkpoint_every_steps = 50
  c.train.keep_last = 2  # newest checkpoints kept; the best one is kept besides
  c.train.episodes_every_steps = 10  # steps between saved sample episodes
  c.train.num_saved_problems = 2  # problems whose samples are saved then
  c.train.progress = True  # show a progress bar


def leaves(config: Mapping[str, Any], prefix: str = 'config') -> Iterator[tuple[str, Any]]:
  """Walks a config.

  Args:
    config: nested mapping.
    prefix: put before every key.

  Yields:
    (dotted key, value).

  Example:
    >>> dict(leaves({'a': {'b': 1}}))
    {'config.a.b': 1}
  """
  for key, value in config.items():
    if isinstance(value, Mapping | ConfigDict):
      yield from leaves(value, f'{prefix}.{key}')
    else:
      yield f'{prefix}.{key}', value


def check_config(config: ConfigDict) -> None:
  """Compares a config with the defaults' keys and types.

  Args:
    config: what a config file returned, with the command line's changes.

  Raises:
    ValueError: naming every unknown key, missing key and value of another type.
  """
  # These are data: the names of levels of the arithmetic task, and of a template's variables.
  free = ('config.task.level_weights.', 'config.chat.options.')
  expected = dict(leaves(default_config()))
  given = {k: v for k, v in leaves(config) if not k.startswith(free)}
  problems = [f'{k}: no such key' for k in given if k not in expected]
  problems += [f'{k}: missing' for k in expected if k not in given]
  for key in expected.keys() & given.keys():
    want, have = expected[key], given[key]
    if not _same_type(want, have):
      problems.append(f'{key}={have!r} is a {type(have).__name__}, not a {type(want).__name__}')
  problems += [
    f'{key}={given[key]!r} must be at least 1'
    for key in (f'config.{k}' for k in POSITIVE)
    if isinstance(given.get(key), int) and given[key] < 1
  ]
  if problems:
    raise ValueError('bad config:\n  ' + '\n  '.join(sorted(problems)))


def _same_type(want: Any, have: Any) -> bool:
  if isinstance(want, bool) or isinstance(have, bool):
    return isinstance(want, bool) and isinstance(have, bool)
  if isinstance(want, float):
    return isinstance(have, int | float)
  if isinstance(want, tuple):
    return isinstance(have, tuple | list) and all(_same_type(want[0], x) for x in have)
  return isinstance(have, type(want))
