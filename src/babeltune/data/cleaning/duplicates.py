"""Conversations that say the same, letter by letter: the first stays."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from babeltune.data.cleaning.kinds import Corpus, CorpusStep, Outcome, Place, dropped, text_of
from babeltune.records import Conversation
from babeltune.steps import ExactStep

REASON = "duplicate"
DIGEST_BYTES = 16
"""128 bits: of a billion texts, two that differ share a digest with a chance of 2e-21."""
_TOLD = 10_000


def exact(step: ExactStep, place: Place) -> CorpusStep:
    """A step that goes through the corpus twice and holds some 50 bytes a conversation.

    Who speaks does not count, only what is said. What says nothing at all is no duplicate: other filters know its reason.
    """
    read = asked if step.prompt_only else text_of

    def through(corpus: Corpus) -> Iterator[Outcome]:
        return without(corpus, first_of_each(_digests(corpus, read, place)), REASON)

    return through


def without(corpus: Corpus, twins: NDArray[np.int64], reason: str) -> Iterator[Outcome]:
    """Every conversation, those left out that have a twin: the number of an earlier conversation, -1 for none."""
    places = {int(twin): "" for twin in np.unique(twins[twins >= 0])}
    for number, conversation in enumerate(corpus):
        if number in places:
            places[number] = conversation.place
        twin = int(twins[number])
        yield conversation if twin < 0 else dropped(conversation, reason, f"of {places[twin]}")


def letters(text: str) -> str:
    """The text in one width and case, without white space.

    >>> letters("Ｘin  Chào。")
    'xinchào。'
    """
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def asked(conversation: Conversation) -> str:
    """What is first asked; of a document, everything."""
    first = next((message for message in conversation.messages if message.role in ("user", "text")), None)
    return "" if first is None else f"{first.text}\n{first.input}"


def first_of_each(digests: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each row of two words the number of the first row like it, -1 where that is itself or the row is zero.

    >>> first_of_each(np.array([[1, 1], [2, 2], [1, 1], [0, 0], [0, 0]], np.uint64)).tolist()
    [-1, -1, 0, -1, -1]
    """
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: of equals, the first comes first
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (digests[order[1:]] != digests[order[:-1]]).any(axis=1)
    starts = np.flatnonzero(is_new)
    twins = np.full(len(order), -1, np.int64)
    twins[order] = order[np.repeat(starts, np.diff(starts, append=len(order)))]
    twins[(twins == np.arange(len(twins))) | ~digests.any(axis=1)] = -1
    return twins


def _digests(corpus: Corpus, read: Callable[[Conversation], str], place: Place) -> NDArray[np.uint64]:
    """Two words a conversation, zeros for one that says nothing."""
    found = np.zeros((len(corpus), 2), np.uint64)
    for number, conversation in enumerate(corpus):
        if number % _TOLD == 0:
            place.progress(number, len(corpus))
        text = letters(read(conversation))
        if text:
            digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()
            found[number] = np.frombuffer(digest, np.uint64)
    return found
