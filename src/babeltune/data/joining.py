"""Plain texts one after another, cut into blocks of one length: pretraining as language models' own code does it. No torch."""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from babeltune.data.store import TokenStore
from babeltune.data.tokenizing import Flags, Ids

Numbers = NDArray[np.int32]


class Joined:
    """Texts of one source, joined in a random order and cut every `max_tokens` tokens, wherever that is.

    The texts of a block see each other, and each one's marks are learned with it. A block begins with the last token of the one
    before, so every token is learned once; the last block is as long as what is left. The order depends on `name` alone.
    """

    def __init__(self, store: TokenStore, rows: Numbers, max_tokens: int, name: str) -> None:
        self._store = store
        self._rows, self._goes_on = _in_order(store, rows, name)
        self._ends = np.cumsum(store.lengths[self._rows] - self._goes_on, dtype=np.int64)
        self._stride = max_tokens - 1

    def __len__(self) -> int:
        total = int(self._ends[-1]) if len(self._ends) else 0
        return -(-max(0, total - 1) // self._stride) if self._stride else 0

    @cached_property
    def lengths(self) -> Numbers:
        """Tokens of each block."""
        lengths = np.full(len(self), self._stride + 1, np.int32)
        if len(self):
            lengths[-1] = int(self._ends[-1]) - (len(self) - 1) * self._stride
        return lengths

    @property
    def target_counts(self) -> Numbers:
        """Tokens to learn of each block: all but its first."""
        return self.lengths - 1

    def __getitem__(self, block: int) -> tuple[Ids, Flags]:
        start = block * self._stride
        end = start + int(self.lengths[block])
        first, last = np.searchsorted(self._ends, [start, end - 1], side="right")
        parts = [self._store[int(self._rows[i])][0][int(self._goes_on[i]) :] for i in range(first, last + 1)]
        before = int(self._ends[first - 1]) if first else 0
        ids = np.concatenate(parts)[start - before : end - before]
        return ids, np.arange(len(ids)) > 0


def _in_order(store: TokenStore, rows: Numbers, name: str) -> tuple[Numbers, Flags]:
    """The rows, those of one text side by side and texts in random order; and which rows go on where the one before ended.

    A row that goes on begins with the last token of the one before.
    """
    rows = np.sort(rows)
    goes_on = np.zeros(len(rows), np.bool_)
    goes_on[1:] = (np.diff(rows) == 1) & (np.diff(store.origins[rows]) == 0)
    texts = np.cumsum(~goes_on) - 1
    generator = np.random.PCG64(int.from_bytes(hashlib.sha256(f"{name}/joined".encode()).digest()))
    places = generator.random_raw(int(texts[-1]) + 1 if len(texts) else 0)
    order = np.lexsort((np.arange(len(rows)), places[texts]))
    return rows[order].astype(np.int32), goes_on[order]
