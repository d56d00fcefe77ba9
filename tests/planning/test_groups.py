"""Which chips a message is sent among, as a compiled program writes it."""

import pytest

from score_jax.planning.groups import axes_of, groups_of

MESH = {'data': 1, 'fsdp': 2, 'tensor': 2}


@pytest.mark.parametrize(
  ('text', 'groups', 'axes'),
  [
    ('replica_groups=[1,4]<=[4], x', [[0, 1, 2, 3]], 'fsdp+tensor'),
    ('replica_groups={}, x', [[0, 1, 2, 3]], 'fsdp+tensor'),
    ('source_target_pairs={{0,1},{2,3}}', [[0, 1], [2, 3]], 'tensor'),
    ('replica_groups={{0},{1},{2},{3}}', [[0], [1], [2], [3]], ''),
    ("replica_groups=mesh['a'=2,'b'=1,'c'=2] {'c','b'}", [[0, 1], [2, 3]], 'tensor'),
  ],
)
def test_groups(text, groups, axes):
  found = groups_of(text, 4)
  assert found.tolist() == groups
  assert axes_of(found, MESH) == axes


def test_groups_that_cannot_be_read_are_an_error():
  with pytest.raises(ValueError, match='cannot be read: replica_groups=<new>'):
    groups_of('replica_groups=<new>', 4)
