"""Pretrains the small base policy that ships in `score_jax/assets/arithmetic`.

Three phases, as a language model is first pretrained and then gets habits. The first teaches short
sums by heart; longer ones get a guess. The second teaches to check a first answer at turn 2, with
a slip now and then. The third makes checks rare: at turn 2 the policy mostly repeats itself, and
changes its mind for no reason more often than for one. Checks stand at turn 2 only, where there is
an answer to be checked: `docs/collapse.md` says what that means, and what changes without it.

    python -m score_jax.pretrain --config=configs/pretrain_arithmetic.py --workdir=DIR
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """Makes the config of the pretraining program; its own keys, not those of a run."""
  c = ConfigDict()
  c.seed = 0
  c.batch = 192  # traces a step
  c.length = 32  # tokens a trace may take
  c.first_turn_tokens = 13  # budget of turn 1; longer answers are cut
  c.learning_rate = 2e-3
  c.warmup_steps = 100
  c.level_weights = {'4': 3.0, '5': 5.0}  # of a phase that has none of its own
  c.known_terms = 4  # longer sums are guessed at turn 1
  c.model = ConfigDict(
    dict(
      num_layers=2,
      embed_dim=64,
      mlp_dim=256,
      num_heads=4,
      num_kv_heads=4,
      head_dim=16,
      scan_unroll=2,
    )
  )
  recall = dict(level_weights={'3': 1.0, '4': 1.0})
  check = dict(
    level_weights={'3': 1.0, '4': 1.0, '5': 2.0},
    wrong_t1=0.3,
    checked_t2=0.85,
    slip=0.08,
    changed_t2=0.05,
  )
  habit = dict(wrong_t1=0.5, checked_t2=0.1, slip=0.08, changed_t2=0.2)
  c.phases = (
    ConfigDict(dict(steps=600, **recall)),
    ConfigDict(dict(steps=1500, **check)),
    ConfigDict(dict(steps=200, **habit)),
  )
  return c
