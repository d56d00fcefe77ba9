"""The former name of a program."""

import runpy

import pytest
from makers import ROOT


def test_the_former_name_says_the_new_one(capsys):
  with pytest.raises(SystemExit, match='2'):
    runpy.run_path(str(ROOT / 'score_jax' / 'rollouts.py'), run_name='__main__')
  assert 'python -m score_jax.episodes' in capsys.readouterr().err
