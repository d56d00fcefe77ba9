"""Paths of the leaves of nested dicts."""

import jax

Path = tuple[str, ...]


def leaf_path(keys) -> Path:
  """The names on the way to a leaf, from the keys that jax gives."""
  return tuple(key.key for key in keys)


def leaf_paths(tree) -> list[Path]:
  """The path of every leaf of nested dicts, in the order of jax."""
  return [leaf_path(keys) for keys, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def nest(leaves) -> dict:
  """Nested dicts from (path, leaf) pairs, each taken when the one before is in its place.

  Raises:
    ValueError: if a path is another one's, or goes on below another one's leaf.

  Example:
    >>> nest([(('a', 'b'), 1), (('c',), 2)])
    {'a': {'b': 1}, 'c': 2}
  """
  tree: dict = {}
  for path, leaf in leaves:
    inner = tree
    for name in path[:-1]:
      inner = inner.setdefault(name, {}) if isinstance(inner, dict) else inner
    if not isinstance(inner, dict) or path[-1] in inner:
      raise ValueError(f'leaf "{"/".join(path)}" has the path of another leaf or subtree')
    inner[path[-1]] = leaf
  return tree
