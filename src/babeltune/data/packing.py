"""How lengths are dealt to ranks, laid into rows, and rows into micro-batches."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int32]
"""Examples, or tokens of them: four bytes, for there may be millions."""


def share(lengths: Sequence[int] | Numbers, rank: int, world: int) -> list[int]:
    """The positions in `lengths` that fall to a rank: longest first, each to the rank with the fewest tokens so far."""
    loads = [0] * world
    mine = []
    for position in _longest_first(lengths):
        least = loads.index(min(loads))
        loads[least] += int(lengths[position])
        if least == rank:
            mine.append(position)
    return mine


def pack(lengths: Sequence[int] | Numbers, capacity: int) -> list[list[int]]:
    """Lay positions into as few rows of `capacity` tokens as best fit finds, then make the rows as even as that allows.

    A length above the capacity has a row of its own.
    """
    rows = _best_fit(lengths, capacity)
    low = max(int(np.max(lengths, initial=0)), -(-int(np.sum(lengths)) // max(1, len(rows))))
    high = capacity
    while low < high:
        middle = (low + high) // 2
        tighter = _best_fit(lengths, middle)
        if len(tighter) <= len(rows):
            rows, high = tighter, middle
        else:
            low = middle + 1
    return rows


def _best_fit(lengths: Sequence[int] | Numbers, capacity: int) -> list[list[int]]:
    """Rows of positions: longest first, each into the row it fills best."""
    rows: list[list[int]] = []
    row: list[int]
    spaces: list[int] = []  # the distinct free spaces, rising
    with_space: defaultdict[int, list[list[int]]] = defaultdict(list)
    for position in _longest_first(lengths):
        length = int(lengths[position])
        found = bisect_left(spaces, length)
        if found == len(spaces):
            row, space = [], capacity
            rows.append(row)
        else:
            space = spaces[found]
            row = with_space[space].pop()
            if not with_space[space]:
                del spaces[found]
        row.append(position)
        left = space - length
        if left > 0:
            if not with_space[left]:
                insort(spaces, left)
            with_space[left].append(row)
    return rows


def cut(widths: Sequence[int] | Numbers, micro_tokens: int) -> list[list[int]]:
    """Group rows, longest first, into micro-batches of `micro_tokens` tokens with their padding, or of a single row."""
    groups: list[list[int]] = []
    widest = 0
    for position in _longest_first(widths):
        if groups and (len(groups[-1]) + 1) * widest <= micro_tokens:
            groups[-1].append(position)
        else:
            groups.append([position])
            widest = int(widths[position])
    return groups


def _longest_first(lengths: Sequence[int] | Numbers) -> list[int]:
    order: list[int] = np.argsort(-np.asarray(lengths, np.int64), kind="stable").tolist()
    return order
