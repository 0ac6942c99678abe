"""The text of a mix, line by line, read from its sources as often as it is needed: to learn a vocabulary, and to measure one."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from babeltune.data import contamination, preparing
from babeltune.data.mixing import Taken
from babeltune.data.preparing import Stream, Writing
from babeltune.data.store import TokenStore
from babeltune.options import RunConfig
from babeltune.records import Conversation, MixLedger

LONGEST = 1000
"""Characters of a line; longer ones are cut there. SentencePiece leaves out what has more than 4,192 bytes."""

GROUPS = ("held-out rows", "rows that the mix leaves out", "rows learned from")
"""Where a line may come from, best first for measuring what was learned."""
LEARNED_FROM = GROUPS.index("rows learned from")


@dataclass(frozen=True, slots=True)
class Sample:
    """Lines of one language to measure on."""

    language: str
    lines: tuple[str, ...]
    group: str
    """Which of `GROUPS` they come from."""


@dataclass(frozen=True, slots=True)
class MixText:
    """What a mix says. A conversation or document is read whole when any of its rows is taken, as often as that one is repeated."""

    ledger: MixLedger
    _parts: tuple[tuple[Stream, NDArray[np.int64], NDArray[np.bool_]], ...]
    """Of each source: how to read it, how often each conversation is taken, and which are held out."""

    def learned_from(self) -> Iterator[str]:
        """The lines of one epoch of the mix, none of them blank."""
        for line, _, group, times in self._lines():
            if group == LEARNED_FROM:
                for _ in range(times):
                    yield line

    def samples(self, most: int) -> list[Sample]:
        """At most so many lines of each language and group, chosen by their content alone; of a language the best group first."""
        found: dict[tuple[str, int], _Smallest] = {}
        for line, language, group, _ in self._lines():
            found.setdefault((language, group), _Smallest(most)).see(line)
        return [Sample(language, found[language, group].lines(), GROUPS[group]) for language, group in sorted(found)]

    def _lines(self) -> Iterator[tuple[str, str, int, int]]:
        """Each line with its language, its group, and how often the mix takes it."""
        for stream, times, heldout in self._parts:
            for place, item in enumerate(stream.read()):
                if isinstance(item, Conversation) and (group := _group(place, times, heldout)) is not None:
                    for line in lines(item):
                        yield line, item.language, group, int(times[place])


def read(config: RunConfig, way: Writing, cache: Path, apart: contamination.Index | None = None) -> MixText:
    """The text of a run's mix. Raises DataError as `preparing.prepare` does."""
    mixed = preparing.prepare(config, way, cache, apart)
    streams = preparing.cleaned(config, way, cache, apart).of
    parts = tuple((streams[taken.source], *_places(store, taken)) for store, taken in mixed.parts)
    return MixText(mixed.ledger, parts)


def lines(conversation: Conversation) -> Iterator[str]:
    """What is said in a conversation or document, a line at a time, without the blank ones."""
    for message in conversation.messages:
        for line in [*message.text.splitlines(), *message.input.splitlines()]:
            for start in range(0, len(line), LONGEST):
                if part := line[start : start + LONGEST].strip():
                    yield part


def drawn(read_all: Callable[[], Iterable[str]], most: int | None, seed: int) -> Iterator[str]:
    """At most so many lines, in their order, each as likely as any other (Knuth, The Art of Computer Programming 3.4.2, S).

    Keeps none of them: the lines are read once to be counted and once to be drawn.
    """
    if most is None:
        yield from read_all()
        return
    left, wanted, chance = sum(1 for _ in read_all()), most, random.Random(f"lines {seed}")
    for line in read_all():
        if chance.random() * left < wanted:
            yield line
            wanted -= 1
        left -= 1


class _Smallest:
    """Keeps the lines with the smallest hashes, each once: a sample that does not depend on the order they come in."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[int, str]] = []
        self._there: set[str] = set()

    def see(self, line: str) -> None:
        rank = -int.from_bytes(hashlib.blake2b(line.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        if line in self._there or (len(self._heap) == self._most and rank <= self._heap[0][0]):
            return
        self._there.add(line)
        heapq.heappush(self._heap, (rank, line))
        if len(self._heap) > self._most:
            self._there.remove(heapq.heappop(self._heap)[1])

    def lines(self) -> tuple[str, ...]:
        return tuple(line for _, line in sorted(self._heap, reverse=True))


def _places(store: TokenStore, taken: Taken) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """How often each of a source's conversations is taken, and which are held out; -1 marks one that is in no row."""
    num = int(store.origins.max()) + 1 if len(store.origins) else 0
    times = np.full(num, -1, np.int64)
    times[store.origins] = 0
    repeats = np.bincount(np.asarray(taken.indices, np.int64), minlength=len(store.pool))
    np.maximum.at(times, store.origins[store.pool], repeats)
    heldout = np.zeros(num, np.bool_)
    heldout[store.origins[store.heldout]] = True
    return times, heldout


def _group(place: int, times: NDArray[np.int64], heldout: NDArray[np.bool_]) -> int | None:
    """The place in `GROUPS` of a conversation, or None of one that is not usable."""
    if place >= len(times) or times[place] < 0:
        return None
    if heldout[place]:
        return 0
    return LEARNED_FROM if times[place] else 1
