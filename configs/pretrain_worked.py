"""Pretrains another small base policy, which works sums out, for one setting of the replication.

It can work a sum out term by term, usually answers at once, and repeats itself at turn 2; worked
answers are no likelier at turn 2 than at turn 1. So working out is one habit of both turns, and
what is wrong after RL is what its budget has cut off: see `docs/collapse.md`.

    python -m score_jax.pretrain --config=configs/pretrain_worked.py --workdir=DIR
"""

from ml_collections import ConfigDict

from score_jax.core.config import read_config


def get_config() -> ConfigDict:
  """Makes the config of the pretraining program."""
  c = read_config('pretrain_arithmetic.py', beside=__file__)
  c.batch = 128
  c.first_turn_tokens = 10  # longer worked answers are cut
  c.level_weights = ConfigDict({'3': 1.0, '4': 2.0, '5': 3.0, '6': 1.5})
  c.known_terms = 6
  learn = dict(worked_t1=0.8, wrong_t1=0.1, worked_t2=0.8, worked_again_t2=0.8)
  habit = dict(
    worked_t1=0.15, wrong_t1=0.4, worked_t2=0.012, worked_again_t2=0.002, changed_t2=0.16
  )
  c.phases = (
    ConfigDict(dict(steps=1500, **learn)),
    ConfigDict(dict(steps=300, **habit)),
  )
  return c
