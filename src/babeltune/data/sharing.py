"""Documents side by side in flat rows without padding, and the beginning that several of them share only once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

LEAST_SHARED = 8
"""Tokens; a shorter beginning costs more in bookkeeping than it saves."""


class Text(Protocol):
    """A document: its tokens, and which of them are learned."""

    @property
    def ids(self) -> NDArray[np.int32]: ...
    @property
    def targets(self) -> NDArray[np.bool_]: ...


AnyText = TypeVar("AnyText", bound=Text)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Neighbours in a flat row, in tokens: first the beginning that all of them have, then the rest of each."""

    prefix: int
    rests: tuple[int, ...]


@dataclass(slots=True)
class Group:
    """Documents, by position, that share their first `prefix` tokens; a document alone has a prefix of 0."""

    members: list[int]
    prefix: int = 0


def fill(documents: Sequence[Text], capacity: int) -> list[list[Group]]:
    """Rows of at most `capacity` tokens, shared beginnings counted once; then as even as the same number of rows allows.

    A document above the capacity has a row of its own. Documents that begin alike lie side by side. No documents make no row.
    """
    if not documents:
        return []
    order = sorted(range(len(documents)), key=lambda position: documents[position].ids.astype(">u4").tobytes())
    lengths = [len(documents[position].ids) for position in order]
    common = [0, *(_common(documents[one], documents[other]) for one, other in itertools.pairwise(order))]
    rows = _filled(order, lengths, common, capacity)
    low, high = max(max(lengths), sum(lengths) // (4 * len(rows))), capacity
    while low < high:
        middle = (low + high) // 2
        tighter = _filled(order, lengths, common, middle)
        if len(tighter) <= len(rows):
            rows, high = tighter, middle
        else:
            low = middle + 1
    return rows


def _common(one: Text, other: Text) -> int:
    """Tokens that two documents begin with, up to what is needed to predict the first target of either."""
    most = min(_shareable(one), _shareable(other))
    differing = one.ids[:most] != other.ids[:most]
    return int(differing.argmax()) if differing.any() else most


def _shareable(document: Text) -> int:
    """The position before the first target predicts it, and a document keeps at least its last position to itself."""
    first = int(document.targets.argmax()) if document.targets.any() else len(document.ids)
    return max(0, first - 1)


def _filled(order: Sequence[int], lengths: Sequence[int], common: Sequence[int], capacity: int) -> list[list[Group]]:
    """Rows, filled in order. A document joins the group before it when more tokens are saved with it than without."""
    rows: list[list[Group]] = []
    used = capacity + 1
    for position, length, shared in zip(order, lengths, common, strict=True):
        group = rows[-1][-1] if rows else Group([])
        prefix, added = _joined(group, shared, length)
        if rows and used + added <= capacity and prefix:
            group.members.append(position)
            group.prefix, used = prefix, used + added
        elif rows and used + length <= capacity:
            rows[-1].append(Group([position]))
            used += length
        else:
            rows.append([Group([position])])
            used = length
    return rows


def _joined(group: Group, shared: int, length: int) -> tuple[int, int]:
    """The prefix of a group that one more document joins, 0 when it had better not, and the tokens that this adds."""
    size = len(group.members)
    prefix = min(group.prefix, shared) if size > 1 else shared
    saved_before, saved = max(0, size - 1) * group.prefix, size * prefix
    if prefix < LEAST_SHARED or saved <= saved_before:
        return 0, length
    return prefix, length - (saved - saved_before)


def clusters(documents: Sequence[AnyText], row: Sequence[Group]) -> Iterator[tuple[Cluster, list[AnyText]]]:
    """What each group of a row is laid out as, with its documents."""
    for group in row:
        members = [documents[position] for position in group.members]
        yield Cluster(group.prefix, tuple(len(document.ids) - group.prefix for document in members)), members
