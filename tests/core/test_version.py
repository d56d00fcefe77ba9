"""The commit that results name."""

import subprocess

import pytest
from makers import ROOT

from score_jax.core import version


def test_the_commit_is_the_one_checked_out():
  done = subprocess.run(['git', '-C', ROOT, 'rev-parse', 'HEAD'], capture_output=True, text=True)
  if done.returncode:
    pytest.skip('this is no checkout')
  assert version.commit().removesuffix('-dirty') == done.stdout.strip()


def test_without_git_it_is_unknown(monkeypatch, tmp_path):
  monkeypatch.setattr(version, '__file__', str(tmp_path / 'version.py'))
  monkeypatch.setenv('GIT_CEILING_DIRECTORIES', str(tmp_path))
  assert version.commit() == 'unknown'
  monkeypatch.setenv('PATH', '')
  assert version.commit() == 'unknown'
