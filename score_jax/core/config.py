"""The config of a run: every key, its default and its unit, in one place.

A config file returns `default_config()` with some values changed; `score_jax.core.config_check`
says which values a run takes.
"""

import pathlib
import runpy
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from score_jax.core.errors import in_words

# What may change between two starts of the same run: the mathematics stays, rounding apart.
NOT_IDENTITY = (
  'mesh',
  'profile',
  'train.num_steps',
  'train.checkpoint_every_steps',
  'train.keep_last',
  'train.episodes_every_steps',
  'train.num_saved_problems',
  'train.progress',
  'train.hang_s',
  'rollout.slots',
  'train.micro_batches',
  'train.chunk_tokens',
  'train.length_bucket',
  'model.remat',
  'model.scan_unroll',
  'model.attention',
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


def default_config() -> ConfigDict:
  """Makes the config with every default.

  Returns:
    A ConfigDict. Lengths are in tokens, rates in 1/update, fractions not percent.
  """
  c = ConfigDict()
  c.seed = 0  # root of every random number but the generated problems'
  c.mesh = (-1, 1, 1)  # [devices] along data, fsdp and tensor; -1 takes what is left
  # updates to profile for TensorBoard, 'START:END', both included, such as '3:5'; '' profiles none
  c.profile = ''

  _add_model(c)
  c.init = ConfigDict()  # what training starts from
  c.init.path = ''  # run to start from (Stage I's, for Stage II); '' starts from the base model
  c.init.required = False  # whether to refuse a start without init.path
  c.init.which = 'best'  # 'best' by training reward, or 'latest'

  c.task = ConfigDict()  # problems, prompts and grader; see docs/tasks.md
  # 'arithmetic', 'sums', 'math', 'gsm8k', 'mbpp', 'humaneval' (for evaluation only), or a task of
  # your own, 'module:function'
  c.task.name = 'arithmetic'
  c.task.num_train = 20_000  # [problems] generated tasks: for training
  c.task.num_test = 1024  # [problems] generated tasks: for evaluation
  c.task.seed = 0  # generated tasks: of the problems, apart from the run's seed
  c.task.level_weights = ConfigDict()  # arithmetic: relative frequency of each number of terms
  c.task.low = 2  # sums: smallest addend
  c.task.high = 20  # sums: largest addend

  c.data = ConfigDict()  # where data sets lie
  c.data.path = ''  # folder that holds math/train.jsonl and so on; 'download' fetches the files
  c.data.cache = ''  # folder for downloads, prepared data, a secret; '' takes ~/.cache/score_jax
  c.data.drop_overlap = True  # leave out training problems that are evaluation problems too

  c.grader = ConfigDict()  # how answers are checked
  c.grader.num_workers = 2  # [processes] that check answers
  c.grader.timeout_s = 5.0  # [seconds] an answer may take so long
  c.grader.memory_bytes = 1 << 29  # [bytes] of the process that runs a program
  c.grader.refuse_restated = True  # math, gsm8k: a formula of the question is no answer to it
  c.grader.allow_unsandboxed = False  # run programs where nothing isolates them: trusted ones only

  c.stage = ConfigDict()  # reward and penalty of a turn; see score_jax.objective.stages.Stage
  c.stage.name = ''  # for reports; also names the run directory where --workdir is not set
  c.stage.reward_weight = (0.0,)  # turn k is rewarded with this times r_k
  # [1/nat] turn k is penalised with this times its KL from the reference (paper: beta1, beta2)
  c.stage.kl_weight = (0.0,)
  # this times r_k - r_(k-1) is added to turn k's reward; 0 at turn 1 (paper: alpha)
  c.stage.bonus = (0.0,)
  # 'base', the base model, or 'init', what the stage starts from (paper: pi_ref)
  c.stage.reference = 'base'
  # [fraction] of the next turn's reward added to a turn's; 0 is per-turn credit (paper: gamma)
  c.stage.discount = 0.0
  # [nats] KL of each turn that its weight is adapted to keep, within 0.1 and 10 times it; 0 for a
  # fixed one; () fixes all
  c.stage.kl_target_nats = ()

  _add_procedure(c)
  c.supervised = ConfigDict()  # STaR and Pair-SFT; see score_jax.training.imitate
  c.supervised.method = ''  # 'star' or 'pair_sft'; '' trains by RL
  c.supervised.keep_correct = False  # imitate from right to right too (paper: D+)
  c.supervised.iterations = 1  # [iterations] of sampling and of training the start on that
  c.supervised.epochs = 1  # [epochs] over an iteration's traces
  c.supervised.batch = 64  # [traces] in an update, over all processes
  c.supervised.num_problems = 0  # [problems] sampled in an iteration; 0 takes all
  c.eval = ConfigDict()  # how python -m score_jax.evaluate samples
  c.eval.num_problems = 0  # [problems] spread evenly over the split; 0 takes all
  c.eval.batch = 512  # [episodes] decoded at once, and graded at once
  c.eval.temperature = 0.0  # 0 is greedy (paper: T)
  c.eval.top_k = 0  # [tokens] most likely ones to draw from; 0 takes all, as training always does
  c.eval.top_p = 1.0  # [fraction] probability to draw from; 1 takes all, as training always does
  c.eval.turn_tokens = ()  # [tokens] budget of each turn, as many as there are; () as in training
  # 'self_correct', or 'self_refine': answer, feedback to oneself, answer (arXiv:2303.17651)
  c.eval.protocol = 'self_correct'
  c.eval.feedback_tokens = 128  # [tokens] budget of the feedback
  return c


def _add_model(c: ConfigDict) -> None:
  """Adds the base model, its chat format, and what of it is trained."""
  c.model = ConfigDict()  # the base model; see docs/models.md
  c.model.preset = ''  # a name of score_jax.model.presets; '' takes what the checkpoint says
  # base model: 'embedded', a Hugging Face folder, a .gguf file, an Orbax checkpoint of Gemma, or a
  # weights folder
  c.model.checkpoint = ''
  c.model.dtype = 'float32'  # compute type, 'float32' or 'bfloat16'
  # type the base model's weights are kept in, 'float32' or 'bfloat16': the reference's, and those
  # beside adapters; what is trained is float32 always
  c.model.param_dtype = 'float32'
  c.model.offload_reference = False  # keep the reference in the host's memory between updates
  # what the backward pass computes anew: 'none'; 'block', every layer; 'dots', every layer but for
  # its products with weights
  c.model.remat = 'none'
  c.model.scan_unroll = 1  # [layers] compiled at once
  # kernel of an update: 'auto', the best of the backend; 'plain'; 'xla' or 'cudnn', jax's own
  # function; 'splash', flash attention on TPUs
  c.model.attention = 'auto'

  c.chat = ConfigDict()  # how a model's own chat template is rendered; see docs/tokenizers.md
  c.chat.template = ''  # file of a jinja2 template to use in place of the model's own
  c.chat.date = '2024-07-26'  # the day, YYYY-MM-DD, that a template gets which asks for today's
  c.chat.options = ConfigDict()  # more variables for the template, such as enable_thinking

  c.lora = ConfigDict()  # adapters in place of all weights; see docs/models.md
  c.lora.rank = 0  # columns of the adapters; 0 trains all weights
  c.lora.alpha = 32.0  # what adapters add is multiplied by alpha / rank
  c.lora.targets = ('q', 'k', 'v', 'o', 'gate', 'up', 'down')  # weights that get adapters


def _add_procedure(c: ConfigDict) -> None:
  """Adds what an update is made of."""
  c.objective = ConfigDict()  # the estimators of the gradient; see docs/algorithm.md
  # what a sample's reward is compared with: 'rloo', that of its problem's other samples;
  # 'rloo_given_r1', of those whose turn before was graded alike; 'none', nothing
  c.objective.baseline = 'rloo'
  # 'exact', the sum over the vocabulary at each sampled prefix; 'k1_reward', log pi - log pi_ref
  # taken from its token's reward; 'k2', half its square in the loss
  c.objective.kl_estimator = 'exact'
  # 'turn' penalises a token for the KL of its turn's later tokens too, 'token' for its own alone
  c.objective.kl_credit = 'turn'
  # most that a token's importance weight may be, how much likelier the scorer makes it than the
  # sampler did (2.0 is usual); 0 for none
  c.objective.importance_cap = 0.0

  c.rollout = ConfigDict()  # the sampler and an episode's budgets
  c.rollout.problems_per_step = 64  # [problems] P, over all processes (paper: batch size = P * G)
  c.rollout.samples_per_problem = 8  # [episodes] G; not stated in the paper
  c.rollout.prompt_tokens = 16  # [tokens] longer prompts are left out and counted
  c.rollout.turn_tokens = (16, 16)  # [tokens] budget of each turn, its end included
  c.rollout.temperature = 1.0  # of the sampler, and of both policies' scores (paper: T)
  # [episodes] decoded at once; 0 takes all of a step, in supervised training `eval.batch`
  c.rollout.slots = 0
  # [fraction] of a step's problems: turn 1 is the base model's, as context only
  c.rollout.base_turn1_share = 0.0

  c.optimizer = ConfigDict()  # Adam
  c.optimizer.learning_rate = 5e-6  # the highest of the schedule (paper: learning rate)
  c.optimizer.schedule = 'constant'  # 'constant' or 'cosine' (to 0 at decay_steps)
  c.optimizer.decay_steps = 0  # [updates] 'cosine': reaches 0 after so many, warm-up included
  c.optimizer.warmup_steps = 0  # [updates] the rate rises from 0 in a straight line
  c.optimizer.b1 = 0.9  # [fraction] decay of the first moment; not the paper's beta1, a KL weight
  c.optimizer.b2 = 0.999  # [fraction] decay of the second moment; not the paper's beta2
  c.optimizer.eps = 1e-8  # added to the root of the second moment
  c.optimizer.mu_dtype = 'float32'  # type of the first moment, 'float32' or 'bfloat16'
  c.optimizer.weight_decay = 0.0  # of a weight, times the rate, taken off it in each update
  c.optimizer.clip_norm = 1.0  # largest norm of the whole gradient; 0 does not clip

  c.train = ConfigDict()  # how long, in what parts, and what is kept
  c.train.num_steps = 100  # [updates] of a stage of RL (paper: training steps)
  # [fraction] a control: every answer counts as right with this probability; 0 asks the checker
  c.train.random_reward = 0.0
  # divides the rows that RL updates at a time: a 32nd of the batch, but 4,096 slots on each device
  # (on a CPU 512) if that is more; never more than such a part of the batch; saves memory
  c.train.micro_batches = 1
  c.train.chunk_tokens = 128  # [tokens] query positions whose logits exist at once
  c.train.length_bucket = 64  # [tokens] rows take a multiple of it, at most four lengths in all
  c.train.max_logp_gap_nats = 0.05  # [nats] a larger mean gap of sampler and scorer stops the run
  c.train.checkpoint_every_steps = 50  # [updates] from one to the next
  c.train.keep_last = 2  # [checkpoints] newest ones; the best one is kept besides
  c.train.episodes_every_steps = 10  # [updates] from one save of sample episodes to the next
  c.train.num_saved_problems = 2  # [problems] whose samples are saved then
  c.train.progress = True  # show a progress bar
  # [seconds] without progress after which a run says where it hangs and ends, see docs/pods.md;
  # longer than any compilation, rollout or grading of a turn takes; 0 never ends it
  c.train.hang_s = 1800.0


def read_config(file: str, beside: str = '') -> ConfigDict:
  """Reads a config file: what its `get_config` returns.

  Args:
    file: as `--config` takes it, FILE or FILE:ARGUMENT, where the argument is that of `get_config`.
    beside: a file in whose folder a relative FILE lies, such as the `__file__` of a config that
      inherits from it; '' takes the working directory.

  Returns:
    The config.

  Raises:
    ValueError: if there is no such file, or it makes no config; with the line that fails.
  """
  name, _, argument = file.partition(':')
  path = pathlib.Path(beside).parent / name
  if not path.is_file():
    raise ValueError(f'there is no config file {path}')
  try:
    values = runpy.run_path(str(path))
    if 'get_config' not in values:
      raise ValueError('there is no function get_config')
    config = values['get_config'](*filter(None, [argument]))
  except Exception as error:  # whatever a file of Python may raise
    raise ValueError(f'{_where(error, path)}: {in_words(error)}') from error
  if not isinstance(config, ConfigDict):
    kind = 'nothing' if config is None else f'a {type(config).__name__}'
    raise ValueError(f'{path}: get_config returned {kind}, not a ConfigDict')
  return config


def _where(error: Exception, path: pathlib.Path) -> str:
  """The line of a config file that failed, and the type of an error that says little without it."""
  lines = [x.lineno for x in traceback.extract_tb(error.__traceback__) if x.filename == str(path)]
  if isinstance(error, SyntaxError) and error.filename == str(path):
    lines.append(error.lineno)
  where = f'{path}, line {lines[-1]}' if lines else str(path)
  return where if isinstance(error, ValueError | KeyError) else f'{where}: {type(error).__name__}'


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
