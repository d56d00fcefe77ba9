"""A stage is data, not a branch: the rows of this table are all that differs between methods.

| row | turn 1 gets | turn 2 gets |
|---|---|---|
| `stage1` (Eq. 3) | KL weight beta2 only | r2, KL weight beta1 |
| `stage2` (Eq. 4) | r1, KL weight beta1 | r2 + alpha (r2 - r1), KL weight beta1 |
| `multiturn_rl` (Eq. 1) | r1, KL weight beta1 | r2, KL weight beta1 |
| `last_turn_rl` (the paper's "standard multi-turn RL") | KL weight beta1 | r2, KL weight beta1 |
| `single_turn_rl` (Eq. 2) | r1, KL weight beta1 | - |

Of three turns: `stage1b` (Stage Ib) and `stage2_of_three_turns`.
"""

import dataclasses

import chex
import flax.struct
import jax
import jax.numpy as jnp

from score_jax.core.masked import masked_mean

# How far `adapt_kl` may take a weight from the stage's own. A tenth of the paper's beta2 is its
# beta1: a turn that lies below its target for long, as every turn does at first, keeps the small
# penalty of Eq. 2.
KL_SCALE_RANGE = (0.1, 10.0)


@dataclasses.dataclass(frozen=True)
class Stage:
  """The rewards and KL penalties of each turn.

  Attributes:
    name: for reports.
    reward_weight: K numbers; turn k is rewarded with `reward_weight[k] * r_k`.
    kl_weight: K numbers; turn k is penalised with `kl_weight[k]` per nat of KL from the reference.
    bonus: K numbers, the first 0; `bonus[k] * (r_k - r_(k-1))` is added to turn k's reward.
    reference: 'base', the base model, or 'init', the weights that the stage starts from.
    discount: gamma; gamma^(j-k) times the reward of each later turn j is added to turn k's. 0 is
      per-turn credit, the paper's.
    kl_target_nats: KL per turn that `kl_weight` is adapted to keep, one number for each turn, by a
      factor of `KL_SCALE_RANGE`; 0 leaves that turn's weight fixed. Empty or all 0: every weight
      is fixed.
  """

  name: str
  reward_weight: tuple[float, ...]
  kl_weight: tuple[float, ...]
  bonus: tuple[float, ...]
  reference: str = 'base'
  discount: float = 0.0
  kl_target_nats: tuple[float, ...] = ()

  def __post_init__(self):
    lengths = {len(self.reward_weight), len(self.kl_weight), len(self.bonus)}
    if len(lengths) != 1:
      raise ValueError(
        f'config.stage: reward_weight={self.reward_weight}, kl_weight={self.kl_weight} and '
        f'bonus={self.bonus} must have one number for each turn'
      )
    if not self.bonus or self.bonus[0] != 0:
      raise ValueError(
        f'config.stage.bonus={self.bonus}: turn 1 has no turn before it, its bonus must be 0'
      )
    if self.reference not in ('base', 'init'):
      raise ValueError(f"config.stage.reference={self.reference!r} is neither 'base' nor 'init'")
    if not 0.0 <= self.discount <= 1.0:
      raise ValueError(f'config.stage.discount={self.discount} is not in [0, 1]')
    targets = self.kl_target_nats
    if len(targets) not in (0, self.num_turns) or min(targets, default=0) < 0:
      raise ValueError(
        f'config.stage.kl_target_nats={targets} must be empty or have '
        f'{self.num_turns} numbers, none below 0'
      )

  @property
  def num_turns(self) -> int:
    """K."""
    return len(self.reward_weight)

  @property
  def is_adaptive(self) -> bool:
    """Whether some turn's KL weight follows a target."""
    return any(self.kl_target_nats)


@flax.struct.dataclass
class StageArrays:
  """A stage's numbers as arrays, so that every stage of K turns runs the same compiled step.

  Attributes:
    reward_weight: f32[K].
    kl_weight: f32[K].
    bonus: f32[K].
    discount: f32[].
    kl_target: f32[K] nats, 0 for a weight that is fixed; None where all are.
  """

  reward_weight: jax.Array
  kl_weight: jax.Array
  bonus: jax.Array
  discount: jax.Array
  kl_target: jax.Array | None = None

  @classmethod
  def of(cls, stage: Stage) -> 'StageArrays':
    """Returns the arrays of a stage."""
    return cls(
      reward_weight=jnp.asarray(stage.reward_weight, jnp.float32),
      kl_weight=jnp.asarray(stage.kl_weight, jnp.float32),
      bonus=jnp.asarray(stage.bonus, jnp.float32),
      discount=jnp.float32(stage.discount),
      kl_target=jnp.asarray(stage.kl_target_nats, jnp.float32) if stage.is_adaptive else None,
    )


def adapt_kl(
  kl_scale_K: jax.Array, kl_BK: jax.Array, is_sampled_BK: jax.Array, target_K: jax.Array
):
  """Moves KL weights towards what keeps a turn's KL at its target.

      scale_k <- clip(scale_k (1 + clip(KL_k / target_k - 1, -0.2, 0.2)), 0.1, 10)

  So beta2 need not be found by hand: a turn that leaves the reference faster than its target
  allows is held harder, one that hardly moves is let go, both within `KL_SCALE_RANGE`.

  Args:
    kl_scale_K: f32[K] what the stage's KL weights are multiplied by.
    kl_BK: f32[B, K] nats, the KL of each turn of this update's whole batch, a sum over its tokens.
    is_sampled_BK: bool[B, K] turns with tokens that the policy sampled. KL_k is the mean over
      these: a forced answer has no KL, and says nothing of how far the policy went.
    target_K: f32[K] nats; 0 leaves the scale as it is.

  Returns:
    f32[K], for the next update; the scale as it is where no row sampled the turn.

  Raises:
    AssertionError: at trace time, if ranks, shapes or the mask's dtype disagree.

  Example:
    >>> f = lambda *x: jnp.array(x, jnp.float32)
    >>> kl_BK, is_sampled_BK = f([0.3, 0.0, 9.0], [0.3, 0.11, 9.0]), f([1, 0, 1], [1, 1, 1]) > 0
    >>> scale_K = adapt_kl(f(1, 1, 1), kl_BK, is_sampled_BK, f(0.1, 0.1, 0))
    >>> [round(float(x), 2) for x in scale_K]
    [1.2, 1.1, 1.0]

  Source: arXiv:2409.12917 allows an "adaptive beta2" and does not say which; the controller is that
  of arXiv:1909.08593, Sec. 2.2. Differs: a gain of 1 in place of 0.1, and the range.
  """
  chex.assert_rank([kl_scale_K, kl_BK, target_K], [1, 2, 1])
  chex.assert_equal_shape([kl_scale_K, kl_BK[0], target_K])
  kl_K = masked_mean(kl_BK, is_sampled_BK, axis=0)
  error_K = jnp.clip(kl_K / jnp.where(target_K > 0, target_K, 1.0) - 1.0, -0.2, 0.2)
  moved_K = jnp.clip(kl_scale_K * (1.0 + error_K), *KL_SCALE_RANGE)
  return jnp.where((target_K > 0) & is_sampled_BK.any(axis=0), moved_K, kl_scale_K)


def stage1(beta1: float, beta2: float) -> Stage:
  """Stage I: reward turn 2 while a strong KL holds turn 1 near the base model.

  Args:
    beta1: the small KL weight that Eq. 2 puts on every turn; here on turn 2.
    beta2: the strong KL weight on turn 1.

  Returns:
    The stage.

  Source: arXiv:2409.12917, Eq. 3. Differs: the weight of turn 2's KL is not stated there.
  """
  return Stage('stage1', (0.0, 1.0), (beta2, beta1), (0.0, 0.0))


def stage2(alpha: float, beta1: float) -> Stage:
  """Stage II: reward both turns, and progress from turn 1 to turn 2 on turn 2 alone.

  Args:
    alpha: weight of the progress bonus `alpha * (r2 - r1)`.
    beta1: KL weight of both turns.

  Returns:
    The stage. It starts from Stage I's weights, its reference is the base model.

  Source: arXiv:2409.12917, Eq. 4 and the bonus below it.
  """
  return Stage('stage2', (1.0, 1.0), (beta1, beta1), (0.0, alpha))


def multiturn_rl(beta1: float) -> Stage:
  """Plain multi-turn RL: reward both turns, no Stage I before it, no bonus.

  Args:
    beta1: KL weight of both turns.

  Returns:
    The stage.

  Source: arXiv:2409.12917, Eq. 1 with the KL of Eq. 2.
  """
  return Stage('multiturn_rl', (1.0, 1.0), (beta1, beta1), (0.0, 0.0))


def last_turn_rl(beta1: float) -> Stage:
  """The paper's "standard multi-turn RL": reward turn 2 only, without Stage I's strong KL.

  Args:
    beta1: KL weight of both turns.

  Returns:
    The stage.

  Source: arXiv:2409.12917, Sec. 5 and Fig. 6.
  """
  return Stage('last_turn_rl', (0.0, 1.0), (beta1, beta1), (0.0, 0.0))


def stage1b(beta1: float, beta2: float) -> Stage:
  """Stage Ib of three turns: reward turn 3 while turns 1 and 2 are held near Stage Ia's result.

  Stage Ia is `stage1` itself, trained on two turns.

  Args:
    beta1: KL weight of turn 3.
    beta2: the strong KL weight on turns 1 and 2.

  Returns:
    The stage, of three turns; its reference is what it starts from.

  Source: arXiv:2409.12917 (camera-ready), App. A.1.
  """
  return Stage('stage1b', (0.0, 0.0, 1.0), (beta2, beta2, beta1), (0.0, 0.0, 0.0), 'init')


def stage2_of_three_turns(alpha: float, beta1: float) -> Stage:
  """Stage II of three turns: reward all turns, and progress over the turn before.

  Args:
    alpha: weight of the progress bonus, on turns 2 and 3.
    beta1: KL weight of all turns.

  Returns:
    The stage. It starts from Stage Ib's weights, its reference is the base model.

  Source: arXiv:2409.12917 (camera-ready), App. A.1.
  """
  return Stage('stage2_of_three_turns', (1.0,) * 3, (beta1,) * 3, (0.0, alpha, alpha))


def single_turn_rl(beta1: float) -> Stage:
  """RL on one answer.

  Args:
    beta1: KL weight.

  Returns:
    The stage, of one turn.

  Source: arXiv:2409.12917, Eq. 2.
  """
  return Stage('single_turn_rl', (1.0,), (beta1,), (0.0,))
