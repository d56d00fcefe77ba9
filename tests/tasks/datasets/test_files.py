"""Where prepared data lies."""

from score_jax.tasks.datasets import files


def test_the_default_cache_is_the_users(monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', '/x')
  assert str(files.cache_dir()) == '/x/score_jax'
  monkeypatch.delenv('XDG_CACHE_HOME')
  monkeypatch.setenv('HOME', '/home/me')
  assert str(files.cache_dir()) == '/home/me/.cache/score_jax'
  assert str(files.cache_dir('/y')) == '/y'
