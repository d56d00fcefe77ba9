"""A stage is data, not a branch: the rows of this table are all that differs between methods.

| row | turn 1 gets | turn 2 gets |
|---|---|---|
| `stage1` (Eq. 3) | KL weight beta2 only | r2, KL weight beta1 |
| `stage2` (Eq. 4) | r1, KL weight beta1 | r2 + alpha (r2 - r1), KL weight beta1 |
| `multiturn_rl` (Eq. 1) | r1, KL weight beta1 | r2, KL weight beta1 |
| `last_turn_rl` (the paper's "standard multi-turn RL") | KL weight beta1 | r2, KL weight beta1 |
| `single_turn_rl` (Eq. 2) | r1, KL weight beta1 | - |
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Stage:
  """What each turn's tokens are paid and charged.

  Attributes:
    name: for reports.
    reward_weight: K numbers; turn k's tokens are paid `reward_weight[k] * r_k`.
    kl_weight: K numbers; turn k's tokens are charged `kl_weight[k]` per nat of KL from the
      reference.
    bonus: K numbers, the first 0; turn k's tokens are paid `bonus[k] * (r_k - r_(k-1))` more.
    reference: 'base', the base model, or 'init', the weights that the stage starts from.
    discount: gamma; turn k is also paid gamma^(j-k) times what later turns j are paid. 0 is
      per-turn credit, the paper's.
  """

  name: str
  reward_weight: tuple[float, ...]
  kl_weight: tuple[float, ...]
  bonus: tuple[float, ...]
  reference: str = 'base'
  discount: float = 0.0

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

  @property
  def num_turns(self) -> int:
    """K."""
    return len(self.reward_weight)


@flax.struct.dataclass
class StageArrays:
  """A stage's numbers as arrays, so that every stage of K turns runs the same compiled step.

  Attributes:
    reward_weight: f32[K].
    kl_weight: f32[K].
    bonus: f32[K].
    discount: f32[].
  """

  reward_weight: jax.Array
  kl_weight: jax.Array
  bonus: jax.Array
  discount: jax.Array

  @classmethod
  def of(cls, stage: Stage) -> 'StageArrays':
    """Returns the arrays of a stage."""
    return cls(
      reward_weight=jnp.asarray(stage.reward_weight, jnp.float32),
      kl_weight=jnp.asarray(stage.kl_weight, jnp.float32),
      bonus=jnp.asarray(stage.bonus, jnp.float32),
      discount=jnp.float32(stage.discount),
    )


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


def single_turn_rl(beta1: float) -> Stage:
  """RL on one answer.

  Args:
    beta1: KL weight.

  Returns:
    The stage, of one turn.

  Source: arXiv:2409.12917, Eq. 2.
  """
  return Stage('single_turn_rl', (1.0,), (beta1,), (0.0,))
