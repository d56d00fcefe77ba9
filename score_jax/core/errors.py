"""What a message says of an exception: in words for people, without what only Python reads."""

import os
import re

# Other libraries' messages hold these too.
_FOR_PYTHON = (
  (re.compile(r'\[Errno -?\d+\] '), ''),
  (re.compile(r"\w*Path\((['\"])(.*?)\1\)"), r'\2'),
  (re.compile(r"<class '([\w.]+)'>"), r'\1'),
  (re.compile(r'dict_(?:keys|values)\(\[(.*?)\]\)'), r'\1'),
)


def in_words(error: BaseException) -> str:
  """Says what was wrong, without the type's name, an error number or another Python repr.

  Args:
    error: any exception.

  Returns:
    Of an error of the operating system the path and what happened, of a key that is missing its
    name, else the message; the name of the type where it has none.

  Example:
    >>> in_words(FileNotFoundError(2, 'No such file or directory', 'runs/x'))
    'runs/x: No such file or directory'
    >>> in_words(KeyError('rows')), in_words(EOFError())
    ('there is no "rows"', 'EOFError')
  """
  inner = error.args[0] if error.args else None
  if isinstance(inner, BaseException):  # as urllib wraps one
    return in_words(inner)
  if isinstance(error, OSError) and error.strerror:
    paths = [os.fspath(x) for x in (error.filename, error.filename2) if isinstance(x, str | bytes)]
    return ': '.join([*filter(None, [' and '.join(map(str, paths))]), error.strerror])
  text = str(inner if isinstance(error, KeyError | SyntaxError) and error.args else error)
  if isinstance(error, KeyError | AttributeError) and (key := re.fullmatch("'?([^ ']+)'?", text)):
    text = f'there is no "{key[1]}"'
  for pattern, plain in _FOR_PYTHON:
    text = pattern.sub(plain, text)
  return text or type(error).__name__
