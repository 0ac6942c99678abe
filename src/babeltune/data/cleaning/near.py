"""Conversations that say nearly the same: the first stays.

Greedy, in the order of the corpus: a conversation goes when its text is like one that stayed. Likeness is not passed on: of a
chain in which each text is like its neighbours, the first stays and whatever is like it goes, and so on with the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from babeltune.data.cleaning import minhash
from babeltune.data.cleaning.duplicates import letters, without
from babeltune.data.cleaning.kinds import Corpus, CorpusStep, Outcome, Place, text_of
from babeltune.data.cleaning.minhash import Bands
from babeltune.steps import NearStep

# N conversations, B bands, P permutations

REASON = "near duplicate"
BATCH_CHARACTERS = 2**16
"""Of texts hashed at a time: what the processor's cache holds."""
BLOCK = 2**14
"""Conversations looked up at a time."""
MOST = 32
"""Of the texts that stayed and share a band with a new one, the latest so many are compared with it."""
REMEMBERED = 2_000
"""Texts whose n-grams are held in memory."""


def near(step: NearStep, place: Place) -> CorpusStep:
    """A step that goes through the corpus twice. On disk: the texts, and P + 8 B bytes a conversation; in memory some 50 bytes."""
    bands = minhash.bands_for(step.threshold, step.permutations)

    def through(corpus: Corpus) -> Iterator[Outcome]:
        disk = _write(corpus, step, bands, place)
        try:
            twins = _twins(disk, _grouped(disk), step, place)
        finally:
            disk.texts.close()
        return without(corpus, twins, REASON)

    return through


@dataclass(frozen=True, slots=True)
class _Disk:
    """What is kept of a corpus while it is compared."""

    folder: Path
    bands: Bands
    texts: BinaryIO
    offsets: NDArray[np.int64]
    """Where each text begins, and the end of the last."""

    def text(self, number: int) -> str:
        start, end = int(self.offsets[number]), int(self.offsets[number + 1])
        self.texts.seek(start)
        return self.texts.read(end - start).decode("utf-8", "surrogatepass")

    def keys(self, band: int) -> Path:
        return self.folder / f"keys.{band}"

    def groups(self, band: int) -> Path:
        return self.folder / f"groups.{band}"

    @property
    def signatures(self) -> Path:
        """Of each entry its lowest byte (b-bit minwise hashing, Li and König 2010)."""
        return self.folder / "signatures"


def _write(corpus: Corpus, step: NearStep, bands: Bands, place: Place) -> _Disk:
    """Texts, signatures and band keys to disk."""
    folder, lengths = place.scratch, np.zeros(len(corpus) + 1, np.int64)
    disk = _Disk(folder, bands, (folder / "texts").open("w+b"), lengths)
    with ExitStack() as files:
        signatures = files.enter_context(disk.signatures.open("wb"))
        keys = [files.enter_context(disk.keys(band).open("wb")) for band in range(bands.count)]
        done = 0
        for texts in _batches(corpus):
            found = minhash.signatures([text or "\0" for text in texts], step.characters, step.permutations)
            signatures.write(found.astype(np.uint8).tobytes())
            for file, column in zip(keys, minhash.band_keys(found, bands).T, strict=True):
                file.write(column.tobytes())
            for number, text in enumerate(texts, start=done + 1):
                lengths[number] = disk.texts.write(text.encode("utf-8", "surrogatepass"))
            done += len(texts)
            place.progress(done // 2, len(corpus))
    np.cumsum(lengths, out=lengths)
    disk.texts.flush()
    return disk


def _batches(corpus: Corpus) -> Iterator[list[str]]:
    batch: list[str] = []
    held = 0
    for conversation in corpus:
        text = letters(text_of(conversation))
        batch.append(text)
        held += len(text)
        if held >= BATCH_CHARACTERS or len(batch) >= BLOCK:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class _Groups:
    """Texts that share a band. A group is known by where its members' room begins in `members`."""

    begins: list[int]
    """Of each band's groups."""
    members: NDArray[np.int32]
    """Room for every text of every group; what has stayed so far is written there, in order."""
    filled: NDArray[np.int32]
    """At the beginning of a group's room: how many have stayed."""


def _grouped(disk: _Disk) -> _Groups:
    """Find, band by band, the texts with the same key, and write down for each text its group there, -1 for none."""
    begins, total = [], 0
    for band in range(disk.bands.count):
        keys = np.fromfile(disk.keys(band), np.uint32)
        order = np.argsort(keys, kind="stable")
        is_new = np.ones(len(order), np.bool_)
        is_new[1:] = keys[order[1:]] != keys[order[:-1]]
        starts = np.flatnonzero(is_new)
        sizes = np.diff(starts, append=len(order))
        sizes[sizes == 1] = 0
        rooms = np.where(sizes > 0, np.cumsum(sizes) - sizes, -1).astype(np.int32)
        group = np.empty(len(order), np.int32)
        group[order] = np.repeat(rooms, np.diff(starts, append=len(order)))
        group.tofile(disk.groups(band))
        begins.append(total)
        total += int(sizes.sum())
        disk.keys(band).unlink()
    room = functools.partial(_mapped, shape=(max(total, 1),), dtype=np.int32)
    return _Groups(begins, room(disk.folder / "members"), room(disk.folder / "filled"))


def _mapped(path: Path, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Zeros on disk; the system takes their memory back when it needs it."""
    return np.asarray(np.memmap(path, dtype, "w+", shape=shape))


def _twins(disk: _Disk, groups: _Groups, step: NearStep, place: Place) -> NDArray[np.int64]:
    """Of each conversation the number of the one that stayed and is like it, -1 for one that stays."""
    total = len(disk.offsets) - 1
    twins = np.full(total, -1, np.int64)
    begins = np.array(groups.begins, np.int64)[:, None]
    judge = _Judge(disk, step)
    for start in range(0, total, BLOCK):
        count = min(BLOCK, total - start)
        found = np.stack([np.fromfile(disk.groups(band), np.int32, count, offset=4 * start) for band in range(disk.bands.count)])
        is_shared = found >= 0
        rooms = found + begins
        is_empty = disk.offsets[start : start + count] == disk.offsets[start + 1 : start + count + 1]
        for column in np.flatnonzero(is_shared.any(axis=0) & ~is_empty):
            number = start + int(column)
            mine = rooms[is_shared[:, column], column]
            filled = groups.filled[mine]
            twins[number] = judge.twin(number, _candidates(groups, mine, filled))
            if twins[number] < 0:
                groups.members[mine + filled] = number
                groups.filled[mine] += 1
        place.progress((total + start + count) // 2, total)
    place.report |= judge.report()
    return twins


def _candidates(groups: _Groups, rooms: NDArray[np.int64], filled: NDArray[np.int32]) -> NDArray[np.int32]:
    """The texts that stayed, of all bands."""
    parts = [groups.members[room + max(0, count - MOST) : room + count] for room, count in zip(rooms, filled, strict=True) if count]
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int32)


class _Judge:
    """Compares texts: by their signatures first, then by their n-grams."""

    def __init__(self, disk: _Disk, step: NearStep) -> None:
        total = len(disk.offsets) - 1
        shape = (total, step.permutations)
        self._signatures = (
            np.asarray(np.memmap(disk.signatures, np.uint8, "r", shape=shape)) if total else np.empty(shape, np.uint8)
        )
        self._step, self._bands = step, disk.bands
        self._likely = step.threshold - minhash.slack(step.threshold, step.permutations)
        self._grams = functools.lru_cache(REMEMBERED)(lambda number: minhash.grams(disk.text(number), step.characters))
        self._candidates = self._compared = 0

    def twin(self, number: int, candidates: NDArray[np.int32]) -> int:
        """The candidate most like it by signature that is like it, or -1."""
        if not len(candidates):
            return -1
        self._candidates += len(candidates)
        likeness = (self._signatures[candidates] == self._signatures[number]).mean(axis=1)
        for place in np.argsort(-likeness, kind="stable"):
            if likeness[place] < self._likely:
                return -1
            self._compared += 1
            other = int(candidates[place])
            if minhash.jaccard(self._grams(number), self._grams(other)) >= self._step.threshold:
                return other
        return -1

    def report(self) -> dict[str, Any]:
        """Plain values: how texts came to be compared."""
        return {
            "bands": self._bands.count,
            "rows": self._bands.rows,
            "missed_at_threshold": round(1 - self._bands.chance(self._step.threshold), 4),
            "candidates": self._candidates,
            "compared": self._compared,
        }
