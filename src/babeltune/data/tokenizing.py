"""Segments to token ids: the encoder, and the cut to `max_tokens`. No torch."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from babeltune.data.words import Words, are_apart
from babeltune.errors import ModelError, problem
from babeltune.records import Segment

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZING_VERSION = 2
"""Part of every store's key. Raise it when the same rows would give other tokens."""

NO_ANSWER = "no answer within max_tokens"
"""Why a conversation is dropped whose first prompt leaves no room for a token of the answer."""
NOTHING_TO_LEARN = "nothing to learn"
"""Why a conversation or document is dropped in which no token is predicted."""

Ids = NDArray[np.int32]
Flags = NDArray[np.bool_]


class Encoder:
    """Encodes segment by segment: target boundaries are token boundaries, and a prompt's ids begin the whole's.

    Content never becomes a special token, whatever it spells. No BOS or EOS is added. SentencePiece tokenizers put a
    space before each text they are given (`▁Hello`); here only the first text of a conversation gets it, so that the
    ids in a row decode to the texts in a row.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        from tokenizers import Tokenizer

        original = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(original, Tokenizer):
            hint = "a folder with a tokenizer.json"
            raise ModelError(problem("model.tokenizer", type(tokenizer).__name__, "a fast tokenizer", hint))
        parts = json.loads(original.to_str()) | {"truncation": None, "padding": None}
        self.digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        """Changes with whatever may change ids."""
        continuing = parts | {name: _continuing(parts[name]) for name in _PREFIXING}
        self._backend = Tokenizer.from_str(json.dumps(continuing))
        self._prefix = " " if original.decode(self._ids([" "], is_markup=True)[0]) == "" else ""
        if self._prefix and original.encode("a", add_special_tokens=False).ids != self._ids([" a"], is_markup=True)[0]:
            hint = "a Llama-type or byte-level tokenizer"
            raise ModelError(problem("model.tokenizer", parts["pre_tokenizer"], "a first space like any other", hint))
        special = {id: token.content for id, token in self._backend.get_added_tokens_decoder().items() if token.special}
        names = sorted(special.values(), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, names)) or "(?!)")
        self._names = tuple(names)
        self._words = Words(self._plain_ids) if are_apart(continuing) else None
        self._forbidden = frozenset(id for id, name in special.items() if name != parts["model"].get("unk_token"))

    def encode(self, conversations: Sequence[Sequence[Segment]]) -> list[list[list[int]]]:
        """The ids of each segment of each conversation. A text that comes back, like a preamble, is encoded once."""
        pieces = [self._pieces(segments) for segments in conversations]
        unique = dict.fromkeys(itertools.chain.from_iterable(pieces))
        known: dict[tuple[str, bool], list[int]] = {}
        for is_markup in (False, True):
            texts = [text for text, markup in unique if markup is is_markup]
            known.update(zip(((text, is_markup) for text in texts), self._ids(texts, is_markup=is_markup), strict=True))
        return [[known[piece] for piece in row] for row in pieces]

    def decode(self, ids: Sequence[int] | Ids, *, skip_special: bool = False) -> str:
        """The text of ids that follow other text: a first space stays, unlike in the tokenizer's own `decode`."""
        return str(self._backend.decode([int(id) for id in ids], skip_special_tokens=skip_special))

    def forget(self) -> None:
        """Free the words that were remembered to be encoded once."""
        if self._words is not None:
            self._words = Words(self._plain_ids)

    def _pieces(self, segments: Sequence[Segment]) -> list[tuple[str, bool]]:
        """Texts and whether they are markup, with the tokenizer's space before the first that is no special token."""
        pieces = [(segment.text, segment.is_markup) for segment in segments]
        for i, (text, is_markup) in enumerate(pieces if self._prefix else ()):
            start = 0
            while is_markup and (special := self._special.match(text, start)):
                start = special.end()
            if start < len(text):
                pieces[i] = (text[:start] + self._prefix + text[start:], is_markup)
                break
        return pieces

    def _ids(self, texts: list[str], *, is_markup: bool) -> list[list[int]]:
        self._backend.encode_special_tokens = not is_markup
        if is_markup:
            return self._plain_ids(texts)
        if self._words is None:
            return self._spelled_out(texts)
        strange = [text for text in texts if any(name in text for name in self._names)]
        found = dict(zip(strange, self._spelled_out(strange), strict=True))
        usual = [text for text in texts if text not in found] if found else texts
        ids = iter(self._words.encode(usual))
        return [found[text] if text in found else next(ids) for text in texts]

    def _spelled_out(self, texts: list[str]) -> list[list[int]]:
        ids = self._plain_ids(texts)
        for i, found in enumerate(ids):
            if not self._forbidden.isdisjoint(found):
                ids[i] = self._spelled(texts[i])
        return ids

    def _plain_ids(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

    def _spelled(self, text: str) -> list[int]:
        """Ids where `</s>` is an ordinary piece of the vocabulary too: each such word is cut before it is encoded."""
        cuts = [0, *(found.start() + 1 for found in self._special.finditer(text)), len(text)]
        parts = [text[start:end] for start, end in itertools.pairwise(cuts)]
        return [id for part in self._backend.encode_batch_fast(parts, add_special_tokens=False) for id in part.ids]


_PREFIXING = ("normalizer", "pre_tokenizer", "decoder")
_CHILDREN = ("normalizers", "pretokenizers", "decoders")


def _continuing(part: dict[str, Any] | None) -> dict[str, Any] | None:
    """The part of a tokenizer.json without the space that is written before, or taken from, the start of a text."""
    if part is None:
        return None
    match part:
        case {"type": "Prepend"} | {"type": "Strip", "content": " "}:
            return None
        case {"type": "Metaspace"}:
            return {**part, "prepend_scheme": "never"}
        case {"type": "ByteLevel"}:
            return {**part, "add_prefix_space": False}
        case {"type": "Sequence"}:
            return {
                **part,
                **{name: [c for c in map(_continuing, part[name]) if c] for name in _CHILDREN if name in part},
            }
    return part


@dataclass(frozen=True, slots=True)
class Tokens:
    """One row of training data."""

    ids: Ids
    targets: Flags
    """Which ids are learnt. Never the first: nothing comes before it to predict it from."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What is left of one conversation."""

    rows: tuple[Tokens, ...]
    """One row; several for a long document; none when it is dropped."""
    reason: str = ""
    """Why it is dropped; empty when it is not."""
    is_cut: bool = False
    """Its only answer is cut and has no end mark."""
    dropped_turns: int = 0


def fit_conversation(segments: Sequence[Segment], ids: Sequence[Sequence[int]], max_tokens: int) -> Fitted:
    """Keep as many whole turns as fit, from the first on; a first answer too long is cut and loses its end mark.

    A turn ends where a run of targets ends, its end mark included: the mark is learnt just where the answer is whole.
    """
    ends = list(itertools.accumulate(map(len, ids)))
    num_segments = len(segments)
    last = [i for i in range(num_segments) if segments[i].is_target and (i + 1 == num_segments or not segments[i + 1].is_target)]
    if not last:
        return Fitted((), NOTHING_TO_LEARN)
    fitting = [i for i in last if ends[i] <= max_tokens]
    is_cut = not fitting
    if ends[-1] <= max_tokens:
        keep = ends[-1]
    elif fitting:
        keep = ends[fitting[-1]]
    else:
        mark = last[0]
        while mark >= 0 and segments[mark].is_target and segments[mark].is_markup:
            mark -= 1
        keep = min(max_tokens, ends[mark]) if mark >= 0 else 0
    tokens = _row(segments, ids, keep)
    if not tokens.targets.any():
        return Fitted((), NO_ANSWER if is_cut else NOTHING_TO_LEARN)
    return Fitted((tokens,), is_cut=is_cut, dropped_turns=len(last) - max(1, len(fitting)))


def fit_document(segments: Sequence[Segment], ids: Sequence[Sequence[int]], max_tokens: int) -> Fitted:
    """Split a document into blocks of nearly equal length, at most `max_tokens` (2 or more).

    A block begins with the last token of the one before, so that every token after the document's first is learned, once.
    """
    whole = _row(segments, ids, sum(map(len, ids)))
    learned = np.arange(1, len(whole.ids) if max_tokens > 1 else 0)
    rows = []
    for part in np.array_split(learned, -(-len(learned) // (max_tokens - 1))) if len(learned) else []:
        block = slice(part[0] - 1, part[-1] + 1)
        targets = whole.targets[block].copy()
        targets[0] = False
        if targets.any():
            rows.append(Tokens(whole.ids[block], targets))
    return Fitted(tuple(rows), "" if rows else NOTHING_TO_LEARN)


def _row(segments: Sequence[Segment], ids: Sequence[Sequence[int]], keep: int) -> Tokens:
    flat = np.fromiter(itertools.islice(itertools.chain.from_iterable(ids), keep), np.int32, keep)
    targets = np.repeat([segment.is_target for segment in segments], [len(part) for part in ids])[:keep].astype(np.bool_)
    targets[:1] = False
    return Tokens(flat, targets)
