"""Byte-pair encoding taken up where a tokenizer left it: new merges over the tokens it writes now.

Learning pieces anew and appending them would give some that never come up, because the old merges have cut their letters otherwise.
Here each new merge joins two tokens that the tokenizer, with the merges before it, really writes side by side. To let the library's
own trainer do that, each old token stands for one letter of an alphabet of its own.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

FIRST = 0x10000
"""Code point of the letter for token 0. From here to the last there are a million, none of them white space."""
LONGEST = 16
"""Most old tokens in a new piece, as SentencePiece has it for characters: boilerplate is not learned by heart."""
LEAST = 2
"""How often a pair must come up to be merged."""
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Continued:
    """What a tokenizer has to be given: pieces, and the merges that make them, in order."""

    pieces: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]
    learned: int
    """Characters and merges learned."""
    overlapping: int
    """Those of them that spell a piece which was there already."""


def learn(parts: dict[str, Any], texts: Callable[[], Iterable[str]], size: int, coverage: float) -> Continued:
    """At most `size` new pieces for the tokenizer in `parts` (a tokenizer.json). The same texts give the same pieces.

    A tokenizer that falls back to bytes first gets the characters that cover this share of the text; one of bytes has them all.
    """
    characters = _missing_characters(parts, texts(), coverage)[:size] if parts["model"]["byte_fallback"] else []
    grown = with_pieces(parts, characters, [])
    names = {number: piece for piece, number in grown["model"]["vocab"].items()}
    merges = [(_spell(left, names), _spell(right, names)) for left, right in _merges(grown, texts, size - len(characters))]
    there = {*grown["model"]["vocab"], *(token["content"] for token in parts["added_tokens"])}
    new = dict.fromkeys(left + right for left, right in merges if left + right not in there)
    pieces = (*characters, *new)
    learned = len(characters) + len(merges)
    return Continued(pieces, tuple(merges), learned, overlapping=learned - len(pieces))


def with_pieces(parts: dict[str, Any], pieces: Iterable[str], merges: Iterable[Iterable[str]]) -> dict[str, Any]:
    """The tokenizer.json with pieces behind its last id and merges behind its last merge. `parts` stays as it is.

    Tokens that were added to it join its vocabulary: classes that make the tokenizer anew would number them from its end.
    """
    model = parts["model"]
    first = size(parts)
    vocab = model["vocab"] | {token["content"]: token["id"] for token in parts["added_tokens"]}
    vocab |= {piece: first + place for place, piece in enumerate(pieces)}
    return parts | {"model": model | {"vocab": vocab, "merges": [*model["merges"], *map(list, merges)]}}


def size(parts: dict[str, Any]) -> int:
    """Ids of a tokenizer.json: one more than its last."""
    return 1 + int(max(itertools.chain(parts["model"]["vocab"].values(), (token["id"] for token in parts["added_tokens"]))))


def _missing_characters(parts: dict[str, Any], texts: Iterable[str], coverage: float) -> list[str]:
    """Characters without a token, most frequent first, until this share of the text is covered."""
    from tokenizers import Tokenizer

    normalizer = Tokenizer.from_str(json.dumps(parts)).normalizer
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text if normalizer is None else normalizer.normalize_str(text))
    enough, covered, missing = coverage * counts.total(), 0, []
    for character in sorted(counts, key=lambda one: (-counts[one], one)):
        if covered >= enough:
            break
        covered += counts[character]
        if character not in parts["model"]["vocab"]:
            missing.append(character)
    return missing


def _merges(parts: dict[str, Any], texts: Callable[[], Iterable[str]], most: int) -> list[list[str]]:
    """At most so many pairs of strings of letters, each letter an old token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    rows = size(parts)
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=rows + most,
        min_frequency=LEAST,
        initial_alphabet=[chr(FIRST + number) for number in range(rows)],
        max_token_length=LONGEST,
        special_tokens=[],
        show_progress=False,
    )
    learner.train_from_iterator(_words(parts, texts()), trainer)
    learned: list[list[str]] = json.loads(learner.to_str())["model"]["merges"]
    return learned


def _words(parts: dict[str, Any], texts: Iterable[str]) -> Iterator[str]:
    """Each text as letters, with spaces where no merge may reach: between words, and around what stands for no text."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(json.dumps(parts | {"truncation": None, "padding": None}))
    backend.encode_special_tokens = True
    apart = {token["id"] for token in parts["added_tokens"]}
    if parts["model"]["byte_fallback"]:
        apart |= {number for piece, number in parts["model"]["vocab"].items() if _is_fallback(piece)}
    for batch in _batched(texts):
        for encoding in backend.encode_batch(batch, add_special_tokens=False):
            letters, before = [], None
            for number, word in zip(encoding.ids, encoding.word_ids, strict=True):
                alone = number in apart
                letters.append(" " if alone or word != before else "")
                letters.append("" if alone else chr(FIRST + number))
                before = word
            yield "".join(letters)


def _batched(texts: Iterable[str]) -> Iterator[list[str]]:
    """`itertools.batched` is there from Python 3.12 on."""
    texts = iter(texts)
    while batch := list(itertools.islice(texts, BATCH)):
        yield batch


def _is_fallback(piece: str) -> bool:
    """Whether a piece is a byte of a character that has no piece."""
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def _spell(letters: str, names: dict[int, str]) -> str:
    return "".join(names[ord(letter) - FIRST] for letter in letters)
