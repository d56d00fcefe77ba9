"""Makes the `tokenizer.json` of a SentencePiece model: the same ids and text, by another library.

    normaliser spec     -> normalizers: the charsmap, spaces cut and joined, `▁` put in front
    unigram             -> Unigram
    bpe, char           -> BPE; a piece is merged from every two pieces that make it
    word                -> WordLevel, on the words that it knows
    user-defined pieces -> Unigram: the score that SentencePiece gives them; else cut out before

Not everything has a counterpart (see `_refuse`), so what was made is tried on texts before it is
given away. Two things stay different: a charsmap is read letter by letter with its accents, not as
bytes, which shows in rare combinations such as `ª` with an accent; and of two ways to cut a text
whose scores are equal, unigram may take the other one, for it sums them in another precision.
"""

import dataclasses
import random
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from score_jax.tokenizers.base import Tokenizer

SPACE = '▁'
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)  # ModelProto's types
_UNIGRAM, _BPE, _WORD, _CHAR = range(1, 5)
_RESERVED = (_UNKNOWN, _CONTROL, _UNUSED, _BYTE)  # no text becomes one of these
_NEVER = 1e6  # subtracted from the score of a piece that text must not match

# Tried besides the model's own pieces.
_PROBES = (
  *('', ' ', '  ', 'a', ' a', 'a ', '  a  b ', '\n', '\n\n', 'a\n\n b\t', '\ta', '\r\n', '▁', 'a▁'),
  *('+4', '12 + 34 = 46', '3.14', 'x=-7?', 'Ελληνικά русский 漢字かな', 'e\u0301 é ﬁ Ａ ½ ②'),
  *('🙂👩‍👩‍👧', '\u00a0\u3000\u200b|', '\x00\x07a', '</s><s><unk><pad><bos>', 'a <0x41> b'),
  *('aaaaaaaaaaa', 'a' * 7 + ' ' * 7 + 'b', 'ﷺ', 'क्षि', '\ufffd', 'ǅ', 'İi̇'),
)


@dataclasses.dataclass(frozen=True)
class Model:
  """What a .model file says.

  Attributes:
    pieces: text, score and type of each piece, by id.
    kind: 1 unigram, 2 bpe, 3 word, 4 char.
    charsmap: the compiled table of the normaliser; empty for none.
    adds_prefix: whether `▁` is put in front of a text.
    joins_spaces: whether spaces at the ends are cut off and others joined.
    escapes_spaces: whether a space becomes `▁`.
    is_suffix: whether `▁` ends a word in place of beginning it.
    unk_surface: what the unknown piece is decoded to.
  """

  pieces: list[tuple[str, float, int]]
  kind: int
  charsmap: bytes
  adds_prefix: bool
  joins_spaces: bool
  escapes_spaces: bool
  is_suffix: bool
  unk_surface: str

  def of_type(self, *types: int) -> dict[str, int]:
    """The ids of the pieces of some types."""
    return {p: i for i, (p, _, kind) in enumerate(self.pieces) if kind in types}


def parse_model(data: bytes) -> Model:
  """Reads a .model file's bytes, which are a protobuf message, without protobuf.

  Args:
    data: bytes that SentencePiece itself has loaded.

  Source: sentencepiece_model.proto of google/sentencepiece.
  """
  message = list(_fields(data))
  pieces = []
  for body in (value for number, value in message if number == 1):
    piece = dict(_fields(body))
    score = struct.unpack('<f', piece[2])[0] if 2 in piece else 0.0
    pieces.append((piece.get(1, b'').decode(), score, piece.get(3, _NORMAL)))
  trainer, normalizer = (
    {k: v for n, b in message if n == m for k, v in _fields(b)} for m in (2, 3)
  )
  return Model(
    pieces=pieces,
    kind=trainer.get(3, _UNIGRAM),
    charsmap=normalizer.get(2, b''),
    adds_prefix=bool(normalizer.get(3, 1)),
    joins_spaces=bool(normalizer.get(4, 1)),
    escapes_spaces=bool(normalizer.get(5, 1)),
    is_suffix=bool(trainer.get(24, 0)),
    unk_surface=trainer.get(44, ' \u2047 '.encode()).decode(),
  )


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
  """Yields (number, value) of each field of a protobuf message: an int, or bytes."""
  at = 0

  def varint() -> int:
    nonlocal at
    value = shift = 0
    while True:
      byte = data[at]
      at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
      if byte < 128:
        return value

  while at < len(data):
    key = varint()
    if key & 7 == 0:
      yield key >> 3, varint()
      continue
    size = {1: 8, 5: 4}.get(key & 7) or varint()
    yield key >> 3, data[at : at + size]
    at += size


def tokenizer_json(data: bytes, special: Mapping[str, int], same_as: Tokenizer) -> bytes:
  """Makes the file.

  Args:
    data: a .model file's bytes.
    special: tokens whose text is that token, with their ids; may lie outside the model.
    same_as: the tokenizer that the file must agree with.

  Returns:
    The contents of tokenizer.json.

  Raises:
    ValueError: the `tokenizers` library has nothing that does the same, saying what.
  """
  import tokenizers

  model = parse_model(data)
  if why := _refuse(model):
    raise ValueError(why)
  # Special tokens are cut out of the text first.
  symbols = sorted(model.of_type(_USER_DEFINED).keys() - special.keys(), key=len, reverse=True)
  # BPE and char cut out the symbols that the model knows, too. Added tokens do just that, but they
  # are normalised like a text, which must not change them; else a pre-tokenizer is nearly as good.
  cuts = bool(symbols) and model.kind in (_BPE, _CHAR)
  adds = cuts and not (model.adds_prefix or model.joins_spaces or model.charsmap)
  backend = tokenizers.Tokenizer(_make_model(model, knows_symbols=cuts and not adds))
  backend.normalizer = _make_normalizer(model)
  backend.decoder = _make_decoder(model)
  pattern = ''
  if model.kind == _WORD:
    pattern = _words_pattern(model)
  elif model.kind == _UNIGRAM and model.of_type(_BYTE):
    pattern = _reserved_pattern(model)
  elif adds:
    backend.add_tokens([tokenizers.AddedToken(s, normalized=True) for s in symbols])
  elif cuts:
    pattern = _symbols_pattern(model, symbols)
  if pattern:
    cut = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), 'isolated')
    backend.pre_tokenizer = cut
  by_id = sorted(special, key=special.__getitem__)
  backend.add_special_tokens([tokenizers.AddedToken(s, normalized=False) for s in by_id])
  for token in by_id:
    if backend.token_to_id(token) != special[token]:
      raise ValueError(f'token {token!r} cannot have the id {special[token]} there')
  _check_same(backend, model, same_as)
  return backend.to_str(pretty=True).encode()


def _refuse(model: Model) -> str:
  """What of a model has no counterpart; '' for nothing."""
  if model.kind not in (_UNIGRAM, _BPE, _WORD, _CHAR):
    return f'model type {model.kind} is unknown'
  if not model.escapes_spaces or model.is_suffix:
    return f'it does not mark the beginning of a word with {SPACE}'
  if model.kind == _WORD and model.of_type(_BYTE):
    return 'it is a model of whole words that falls back to bytes'
  if model.kind != _UNIGRAM and model.of_type(_UNUSED):
    return 'it has unused pieces'
  return ''


def _make_normalizer(model: Model) -> Any:
  """From text to what the pieces are made of."""
  from tokenizers import Regex, normalizers

  steps = []
  if model.charsmap:
    # It would read the two as one sign, and forget the second.
    steps = [normalizers.Replace('\r\n', '\n\n'), normalizers.Precompiled(model.charsmap)]
  if model.joins_spaces:
    steps += [normalizers.Replace(Regex(r'\A +'), ''), normalizers.Replace(Regex(' {2,}'), ' ')]
  if model.adds_prefix:
    steps.append(normalizers.Prepend(SPACE))
  steps.append(normalizers.Replace(' ', SPACE))
  if model.joins_spaces:
    steps.append(normalizers.Replace(Regex(rf'{SPACE}+\z'), ''))
  pattern = ''
  if model.kind != _WORD and not model.of_type(_BYTE):
    pattern = _reserved_pattern(model)
  elif model.kind == _WORD:
    pattern = rf'\A(?:{_any_of(model.of_type(*_RESERVED))})(?={SPACE}|\z)'
  if pattern:
    steps.append(normalizers.Replace(Regex(pattern), '\U0010ffff'))  # as unknown as before
  return normalizers.Sequence(steps)


def _make_decoder(model: Model) -> Any:
  """From pieces to text; the prefix is taken off again."""
  from tokenizers import Regex, decoders

  [unknown] = model.of_type(_UNKNOWN)
  steps = [decoders.Replace(Regex(rf'\A{re.escape(unknown)}\z'), model.unk_surface)]
  steps += [decoders.ByteFallback(), decoders.Fuse()]
  if model.adds_prefix or model.joins_spaces:
    # SentencePiece takes one off each piece, until something is left.
    is_single = not any(SPACE * 2 in piece for piece, _, _ in model.pieces)
    several = '+' if model.joins_spaces and is_single else ''
    steps.append(decoders.Replace(Regex(rf'\A{SPACE}{several}'), ''))
  return decoders.Sequence([*steps, decoders.Replace(SPACE, ' ')])


def _make_model(model: Model, knows_symbols: bool) -> Any:
  """From normalised text to ids."""
  from tokenizers import models

  vocab = {piece: i for i, (piece, _, _) in enumerate(model.pieces)}
  [(unknown, unk_id)] = model.of_type(_UNKNOWN).items()
  has_bytes = bool(model.of_type(_BYTE))
  if model.kind == _UNIGRAM:
    return models.Unigram(_scores(model), unk_id, has_bytes)
  if model.kind == _WORD:
    # A normalised text has no space, so what cannot be a word is found by no text.
    return models.WordLevel(
      {p[:1] + p[1:].replace(SPACE, ' '): i for p, i in vocab.items()}, unknown
    )
  return models.BPE(
    vocab,
    _merges(model) if model.kind == _BPE else [],
    unk_token=unknown,
    fuse_unk=True,
    byte_fallback=has_bytes,
    ignore_merges=knows_symbols,  # a symbol that was cut out is a piece as it stands
  )


def _scores(model: Model) -> list[tuple[str, float]]:
  """Pieces and scores of a unigram model, such that text matches what it does in SentencePiece."""
  normal = [score for _, score, kind in model.pieces if kind == _NORMAL]
  never = min(normal, default=0.0) - _NEVER
  scores = []
  for piece, score, kind in model.pieces:
    if kind == _USER_DEFINED:
      score = 0.1 * (len(piece.encode()) - 1)  # what SentencePiece takes, whatever the file says
    elif kind != _NORMAL:
      score = never
    scores.append((piece, score))
  return scores


def _reserved_pattern(model: Model) -> str:
  """Matches a sign in each reserved piece, such as `</s>`, that the model does not know.

  Unknown signs have the lowest score there is, so a score alone would not keep such text from
  becoming that piece; without the sign it does not.
  """
  known = model.of_type(_NORMAL, _USER_DEFINED)
  found = []
  for piece in model.of_type(*_RESERVED):
    at = next((i for i, sign in enumerate(piece) if sign not in known), None)
    if at is not None:
      before, sign, after = map(re.escape, (piece[:at], piece[at], piece[at + 1 :]))
      found.append(f'(?<={before}){sign}(?={after})' if before else f'{sign}(?={after})')
  return '|'.join(found)


def _merges(model: Model) -> list[tuple[str, str]]:
  """Which two pieces are merged, in the order of SentencePiece: the best score goes first."""
  pieces = model.of_type(_NORMAL)
  ranked = sorted(pieces, key=lambda piece: -model.pieces[pieces[piece]][1])
  return [
    (piece[:i], piece[i:])
    for piece in ranked
    for i in range(1, len(piece))
    if piece[:i] in pieces and piece[i:] in pieces
  ]


def _any_of(texts: Iterable[str]) -> str:
  """Matches each of some texts, the longest first."""
  return '|'.join(map(re.escape, sorted(texts, key=len, reverse=True)))


def _symbols_pattern(model: Model, symbols: list[str]) -> str:
  """Matches each symbol, and the first sign of a reserved piece that would stand alone."""
  alone = '|'.join(
    f'{re.escape(piece[0])}(?={re.escape(piece[1:])}(?:\\z|{_any_of(symbols)}))'
    for piece in model.of_type(*_RESERVED)
  )
  return rf'{_any_of(symbols)}|(?<=\A|{_any_of(symbols)})(?:{alone})'


def _words_pattern(model: Model) -> str:
  """Matches each word that is known; what lies between two of them is one unknown piece."""
  words = model.of_type(_NORMAL, _USER_DEFINED)
  known = _any_of(word for word in words if SPACE not in word[1:])
  return rf'(?:(?={SPACE})|\A)(?:{known})(?={SPACE}|\z)'


def _check_same(backend: Any, model: Model, same_as: Tokenizer) -> None:
  """Raises ValueError for a text that the two read or write differently."""
  texts = [piece.replace(SPACE, ' ') for piece, _, _ in model.pieces]
  rng = random.Random(0)
  probes = [*_PROBES, *texts[:: max(1, len(texts) // 500)]]
  probes += [''.join(rng.choices([*texts, *_PROBES], k=rng.randint(2, 9))) for _ in range(500)]
  for text in probes:
    want, have = same_as.encode(text), backend.encode(text, add_special_tokens=False).ids
    if have != want:
      raise ValueError(f'it would read {text!r} as {have}, not {want}')
    if (there := backend.decode(want)) != (here := same_as.decode(want)):
      raise ValueError(f'it would write {want} as {there!r}, not {here!r}')
