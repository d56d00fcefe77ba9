"""The program that makes a page of episodes."""

import json
import re

import pytest
from forked import Server
from makers import write_episodes


@pytest.fixture(scope='module')
def run():
  """A function that runs a program: its exit status and what it printed."""
  server = Server('score_jax.runs.episodes_page', 'absl.app', 'ml_collections.config_flags')

  def run(*arguments):
    program = server.start(*arguments)
    return program.communicate(), program.returncode

  yield run
  server.close()


def test_the_page_is_written(run, tmp_path):
  folder = write_episodes(tmp_path)
  printed, status = run('score_jax.episodes', f'--run={folder}')
  assert status == 0, printed
  assert f'11 episodes in {folder}/episodes.html' in printed
  page = (folder / 'episodes.html').read_text(encoding='utf-8')
  episodes = json.loads(re.search('<script[^>]*>(.*?)</script>', page, re.DOTALL)[1])['episodes']
  assert [e['source'] for e in episodes] == ['training'] * 6 + ['eval_greedy'] * 5
  assert episodes[0]['step'] == 3 and 'answers' not in episodes[0]
  printed, status = run('score_jax.episodes', f'--run={folder}', f'--output={folder}/x/y.html')
  assert status == 0 and (folder / 'x' / 'y.html').exists(), printed


def test_it_says_what_is_wrong(run, tmp_path):
  folder = tmp_path / 'work' / 'score' / 'seed0'
  folder.mkdir(parents=True)
  write_episodes(folder)
  for flags, message in {
    (): '--run is not set',
    ('--run=/nowhere',): '--run=/nowhere is not a directory',
    (f'--run={folder}', '--limit=-1'): '--limit=-1 is below 0',
    (f'--run={folder / "eval_greedy"}',): 'holds no episodes: neither',
    (f'--run={tmp_path / "work"}',): f'these do:\n  {folder}',
  }.items():
    printed, status = run('score_jax.episodes', *flags)
    assert status == 2 and message in printed and 'Traceback' not in printed
  assert not list(tmp_path.rglob('*.html'))
