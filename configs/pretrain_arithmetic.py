"""Pretrains the small base policy that ships in `score_jax/assets/arithmetic`.

Two phases, as a language model is first pretrained and then gets habits: the first teaches both
ways of answering, the second the habit of answering at once and repeating oneself. In both, worked
answers are no likelier at turn 2 than at turn 1.

    python -m score_jax.pretrain --config=configs/pretrain_arithmetic.py --workdir=DIR
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """Makes the config of the pretraining program; its own keys, not those of a run."""
  c = ConfigDict()
  c.seed = 0
  c.batch = 128  # traces a step
  c.length = 32  # tokens a trace may take
  c.first_turn_tokens = 10  # budget of turn 1; longer worked answers are cut
  c.learning_rate = 2e-3
  c.warmup_steps = 100
  c.level_weights = {'3': 1.0, '4': 2.0, '5': 3.0, '6': 1.5}
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
  learn = dict(worked_t1=0.8, wrong_t1=0.1, worked_t2=0.8, worked_again_t2=0.8, changed_t2=0.0)
  habit = dict(
    worked_t1=0.15, wrong_t1=0.4, worked_t2=0.012, worked_again_t2=0.002, changed_t2=0.16
  )
  c.phases = (ConfigDict(dict(steps=1500, **learn)), ConfigDict(dict(steps=300, **habit)))
  return c
