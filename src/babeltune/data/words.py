"""Words encoded once: for tokenizers whose pieces never reach over a space. Exact, and several times faster than text by text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

SPACE = "▁"
"""What SentencePiece writes for a space."""
MOST_WORDS = 2**17
"""Known words above which those that the last texts did not hold are forgotten: some 25 MB."""
LONGEST = 32
"""Characters of the longest word that is remembered; text without spaces hardly comes back."""

_WORD = re.compile(f"\n|[ {SPACE}]*[^ {SPACE}\n]+|[ {SPACE}]+")


class Words:
    """Encodes texts word by word. A word has the spaces before it, so that words in a row are the text; a line's end is a word.

    Byte-pair encoding joins two symbols only where their sum is a piece. Where no piece has a space behind another character, and
    none a line's end beside one, no merge reaches over such a place, and the ids of a text are those of its words in a row.
    """

    def __init__(self, encode: Callable[[list[str]], list[list[int]]]) -> None:
        self._encode = encode
        self._known: dict[str, tuple[int, ...]] = {}
        self._numbers: dict[int, int] = {}
        """Each id once: its own number, which takes more memory than the place in a list that points to it."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""
        split = [words(text) for text in texts]
        there = set().union(*split)
        new = list(there - self._known.keys())
        one = self._numbers.setdefault
        self._known.update((word, tuple(map(one, ids, ids))) for word, ids in zip(new, self._encode(new), strict=True))
        encoded = [list(itertools.chain.from_iterable(map(self._known.__getitem__, row))) for row in split]
        for word in new:
            if len(word) > LONGEST:
                del self._known[word]
        if len(self._known) > MOST_WORDS:
            self._known = {word: self._known[word] for word in there if word in self._known}
        return encoded


def words(text: str) -> list[str]:
    """The words of a text, each with the spaces before it; spaces at the end are a word. Some may be empty.

    >>> words("so  it  is ")
    ['so', '  it', '  is', ' ']
    """
    if "  " in text or SPACE in text or "\0" in text:
        return _WORD.findall(text)
    return text.replace("\n", "\0\n\0").replace(" ", "\0 ").split("\0")


def are_apart(parts: dict[str, Any]) -> bool:
    """Whether the tokenizer of this tokenizer.json encodes each word for itself, so that `Words` gives the same ids.

    It does when it is plain byte-pair encoding over text in which nothing but spaces is rewritten, as `▁`, when it cuts nowhere by
    itself, and when no piece has a `▁` behind another character.
    """
    model = parts["model"]
    plain = {"dropout": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "ignore_merges": False}
    if model["type"] != "BPE" or any(model.get(name) not in (value, "", 0.0) for name, value in plain.items()):
        return False
    if any(not token["special"] or SPACE in token["content"] for token in parts["added_tokens"]):
        return False
    if SPACE not in model["vocab"] or not _writes_spaces(parts["normalizer"], parts["pre_tokenizer"]):
        return False
    return not any(SPACE in piece.lstrip(SPACE) for piece in model["vocab"]) and _leaves_lines(model)


def _leaves_lines(model: Any) -> bool:
    """Whether the end of a line is always a token of its own."""
    byte, vocabulary = "<0x0A>", model["vocab"]
    if "\n" not in vocabulary and not (model.get("byte_fallback") and byte in vocabulary):
        return False  # unknown characters in a row may become one token
    return not any(("\n" in piece and piece != "\n") or (byte in piece and piece != byte) for piece in vocabulary)


def _writes_spaces(normalizer: Any, pre_tokenizer: Any) -> bool:
    """Whether spaces become `▁`, and nothing else happens."""
    steps = normalizer["normalizers"] if normalizer and normalizer["type"] == "Sequence" else [normalizer] if normalizer else []
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "never", "split": False}
    return (steps == [replace] and pre_tokenizer is None) or (not steps and pre_tokenizer == metaspace)
