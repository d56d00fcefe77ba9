"""Texts of compiled programs that are counted, on four chips that do one thing a second."""

from score_jax.planning import costs
from score_jax.planning.chips import GIB, Chip
from score_jax.planning.hlo import parse

MESH = {'data': 1, 'fsdp': 2, 'tensor': 2}
PLACES = [(x, y, 0) for y in range(2) for x in range(2)]
# One number a second of everything, so that seconds are sums done by hand.
SLOW = Chip(GIB, 1.0, 1.0, 1.0, wraps_from=4, shapes=())


def program_of(entry, *others):
  return parse('HloModule m\n\n' + '\n\n'.join([*others, 'ENTRY ' + entry]) + '\n')


def counted(module, most=None):
  return costs.count(module, SLOW, MESH, PLACES, most)


ADD = """%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}"""
