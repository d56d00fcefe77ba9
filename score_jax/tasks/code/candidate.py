"""The candidate's side: runs the program, and calls its functions when the judge says so.

Whatever the program does to this process, it only shapes its own answers. Messages of the judge:

    ["load", source]
    ["call", function, arguments, keywords]
    ["get", object, name]
    ["set", object, name, value]

and the reply to each: ["value", value] or ["raised", name of the exception]. Functions and objects
are values too (values.py): ["object", "name in the program"] or ["object", number].
"""

import os
import random
import sys
import types

from score_jax.tasks.code import values, wire

_MODULE = 'program'


def serve(descriptor: int) -> None:
  """Does what the judge asks until it closes the channel.

  Args:
    descriptor: the channel.
  """
  program = types.ModuleType(_MODULE)
  sys.modules[_MODULE] = program
  objects: list = []
  # What a program draws is the same each time, and so is its verdict. The tests draw elsewhere.
  random.seed(0)

  def keep(value) -> int:
    objects.append(value)
    return len(objects) - 1

  def look_up(reference):
    if isinstance(reference, int):
      return objects[reference]
    if reference not in program.__dict__:
      raise NameError(reference)
    return program.__dict__[reference]

  while True:
    try:
      message = wire.receive(lambda size: os.read(descriptor, size))
    except EOFError:
      return
    try:
      result = _perform(message, program, look_up)
      reply = wire.pack(['value', values.encode(result, keep)])
      del result
    except BaseException as error:
      reply = wire.pack(['raised', type(error).__name__])
    while reply:
      reply = reply[os.write(descriptor, reply) :]


def _perform(message: list, program: types.ModuleType, look_up):
  """Does what one message asks; returns its result."""
  kind, *parts = message
  if kind == 'load':
    exec(compile(parts[0], f'{_MODULE}.py', 'exec'), program.__dict__)
    return None
  decoded = [values.decode(part, look_up) for part in parts]
  if kind == 'call':
    function, arguments, keywords = decoded
    return function(*arguments, **keywords)
  return getattr(*decoded) if kind == 'get' else setattr(*decoded)
