"""What the programs share: flags of the config, help, and messages for people."""

import pytest
from makers import ROOT, with_flags
from ml_collections import ConfigDict

from score_jax.core.config import default_config, leaves, read_config


def tuples_of(config):
  """The keys whose values are tuples of numbers or names, as the command line writes them."""
  return {
    key.removeprefix('config.'): value
    for key, value in leaves(config)
    if isinstance(value, tuple) and all(isinstance(x, int | float | str) for x in value)
  }


CONFIGS = ('stage1_math.py', 'stage2_code.py', 'gsm8k.py:stage2', 'baselines.py:star_d')
OTHERS = ('quickstart.py', 'replicate_arithmetic.py')


@pytest.mark.parametrize('name', CONFIGS + OTHERS)
def test_of_a_tuple_given_several_times_the_last_counts(name):
  config = read_config(f'{ROOT}/configs/{name}')
  keys = tuples_of(config)
  assert len(keys) >= (len(tuples_of(default_config())) if name in CONFIGS else 0)
  line, want = [], {}
  for i, (key, value) in enumerate(keys.items()):
    first, last = (('x',), ('y', 'z')) if isinstance((*value, 0)[0], str) else ((8, 9), (-i, 2.5))
    line += [f'--config.{key}={first}', f'--config.{key}={last}']
    want[key] = last
  found = tuples_of(with_flags(config, line))
  assert {key: found[key] for key in want} == want


@pytest.mark.parametrize(
  ('given', 'want'),
  [
    (['(8,9)', '(10,11)', '(12,)'], (12,)),
    (['8', '9'], (9,)),
    (['(8,9)', '()'], ()),
    (['()', '(8,9)'], (8, 9)),
    (['[8,9]', '[-10]'], (-10,)),
    (['(8,9)', '(8,9)'], (8, 9)),
    (['((1,2),3)', '((4,5),)'], ((4, 5),)),
    (['q', 'k'], ('k',)),
    (["('q','k')", '"v"'], ('v',)),
  ],
)
def test_every_form_of_a_tuple(given, want):
  before = {'tuple': (1, 2), 'empty': (), 'list': [1, 2]}
  for key in before:
    flag = f'config.some.deep.{key}'
    together = [f'--{flag}={value}' for value in given]
    apart = [word for value in given for word in (f'-{flag}', value)]
    for line in (together, apart):
      found = with_flags(ConfigDict({'some': {'deep': before}}), line).some.deep.to_dict()
      assert tuple(found[key]) == want
      assert found | {key: 0} == before | {key: 0}
