"""Paths of leaves, there and back."""

import pytest

from score_jax.core.paths import leaf_paths, nest

TREE = {'b': {'x': 1, 'a': {'y': 2}}, 'a': 3}
LEAVES = [(('a',), 3), (('b', 'a', 'y'), 2), (('b', 'x'), 1)]  # in the order of jax, by name


def test_a_tree_is_its_leaves_by_path():
  assert leaf_paths(TREE) == [path for path, _ in LEAVES]
  assert nest(LEAVES) == nest(reversed(LEAVES)) == TREE
  assert nest([]) == {}


@pytest.mark.parametrize(
  ('paths', 'name'),
  [
    ((('a', 'b'), ('a', 'b')), 'a/b'),
    ((('a', 'b'), ('a', 'b', 'c')), 'a/b/c'),
    ((('a', 'b'), ('a', 'b', 'c', 'd')), 'a/b/c/d'),
    ((('a', 'b', 'c'), ('a', 'b')), 'a/b'),
  ],
)
def test_two_leaves_of_one_path_are_refused(paths, name):
  with pytest.raises(ValueError, match=f'leaf "{name}" has the path of another leaf or subtree'):
    nest((path, 0) for path in paths)
