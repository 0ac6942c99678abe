"""SentencePiece vocabularies: learned from text, read from a file, and one appended to another. No torch."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from babeltune.errors import ConfigError, ModelError, problem
from babeltune.options import Scores

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of pieces, as sentencepiece_model.proto numbers them."""
BPE = 2
"""The number of byte-pair encoding among the kinds of models there."""


@dataclass(frozen=True, slots=True)
class Merged:
    """A base vocabulary with the pieces of another behind its own."""

    proto: Any
    pieces: tuple[str, ...]
    """The new ones, in the order of their ids."""
    learned: int
    """Pieces of the other, its marks among them."""
    overlapping: int
    """Those of them that the base has already."""


def learn(texts: Iterable[str], size: int, coverage: float, normalizer: str) -> Any:
    """A byte-pair vocabulary of at most `size` pieces, as a ModelProto. The same lines in the same order give the same bytes.

    Every line is kept in memory (`input_sentence_size=0`). Raises ConfigError when the size has no room for the characters, or
    when there is no text.
    """
    import sentencepiece

    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=written,
            model_type="bpe",
            vocab_size=size,
            character_coverage=coverage,
            normalization_rule_name=normalizer,
            remove_extra_whitespaces=False,
            input_sentence_size=0,
            max_sentence_length=8192,
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        words = " ".join(str(error).split())
        got = f"{size} ({words.rsplit('] ', 1)[-1][:150] or 'no reason given'})"
        hint = "a larger stage.size or a smaller stage.coverage"
        raise ConfigError(problem("stage.size", got, "room for the characters of a text that says something", hint)) from error
    return _parsed(written.getvalue(), "pieces learned from the mix")


def read(path: Path) -> Any:
    """The ModelProto in a file. Raises ModelError when there is none."""
    try:
        return _parsed(path.read_bytes(), str(path))
    except OSError as error:
        raise ModelError(
            problem(str(path), error.strerror or error, "a SentencePiece model", "the path of a .model file")
        ) from error


def of_pairs(path: Path) -> Any:
    """`read`, and a ModelError for a model that does not merge pairs: only those can be told what to merge last."""
    proto = read(path)
    if proto.trainer_spec.model_type != BPE:
        got = "a unigram model" if proto.trainer_spec.model_type == 1 else "a model of words or characters"
        raise ModelError(problem(str(path), got, "a SentencePiece model of byte pairs", "another base"))
    return proto


def _parsed(raw: bytes, where: str) -> Any:
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(raw)
    except DecodeError as error:
        raise ModelError(problem(where, "bytes of another kind", "a SentencePiece model", "another file")) from error
    if not proto.pieces:
        raise ModelError(problem(where, "no pieces", "a SentencePiece model", "another file"))
    return proto


def append(base: Any, other: Any, scores: Scores, added: Sequence[tuple[str, bool]] = ()) -> Merged:
    """The pieces of `other` that `base` lacks, appended with their scores. What the base has keeps its ids and scores.

    `added` are tokens that the base's tokenizer has behind its pieces, and whether they are special: they keep their ids too, as
    pieces that no text becomes. A normaliser of `other` is dropped, because the base's own has to go on for the old pieces.
    """
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.CopyFrom(base)
    lowest = min(piece.score for piece in base.pieces)
    for name, is_special in added:
        proto.pieces.add(piece=name, score=0.0, type=CONTROL if is_special else USER_DEFINED)
    there = {piece.piece for piece in proto.pieces}
    new = [piece for piece in other.pieces if piece.type == NORMAL and piece.piece not in there]
    for piece in new:
        match scores:
            case Scores.falling:
                score = lowest = _below(lowest)
            case Scores.keep:
                score = piece.score
            case Scores.zero:
                score = 0.0
        proto.pieces.add(piece=piece.piece, score=score)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    names = tuple(piece.piece for piece in new)
    return Merged(proto, names, learned=len(other.pieces), overlapping=len(other.pieces) - len(names))


def _below(score: float) -> float:
    """One less, and less as a float32 too, which is what the file keeps: some pieces of Llama's are worth -10⁹."""
    return min(score - 1, float(np.nextafter(np.float32(score), np.float32(-np.inf))))


def merges(proto: Any) -> list[list[str]]:
    """The pairs that make each piece, best first: how a fast tokenizer says what SentencePiece says by scores."""
    ids = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    found = []
    for piece in proto.pieces:
        if piece.type != NORMAL:
            continue
        name = piece.piece
        pairs = [(name[:end], name[end:]) for end in range(1, len(name)) if name[:end] in ids and name[end:] in ids]
        found += [(left, right, piece.score) for left, right in sorted(pairs, key=lambda pair: (ids[pair[0]], ids[pair[1]]))]
    found.sort(key=lambda pair: (pair[2], len(pair[0]), len(pair[1])), reverse=True)
    return [[left, right] for left, right, _ in found]


def processor(proto: Any) -> Any:
    """What writes text with these pieces."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
