"""Documents side by side in rows, and the tensors of them."""

# B rows of a micro-batch, T tokens of a row

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from babeltune.data.packing import cut, pack
from babeltune.data.sharing import Cluster, Group, clusters, fill

IGNORED = -100
"""Label of a position that predicts nothing."""


class Rowing(Enum):
    """What attention wants its rows to be."""

    even = "even"
    """Rows of at most `data.max_tokens`, laid out as `data.layout` says and filled up to the longest."""
    flat = "flat"
    """One row a micro-batch, document after document."""
    shared = "shared"
    """The same, and what several documents begin with is in it once."""


@dataclass(frozen=True, slots=True)
class Document:
    """One example, as it goes into a row."""

    ids: NDArray[np.int32]
    targets: NDArray[np.bool_]
    source: int


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What goes through the model at a time. Every document is for itself; padding is at the right."""

    input_ids_BT: Tensor
    position_ids_BT: Tensor
    """Restart at 0 with each document, and with the padding."""
    document_ids_BT: Tensor
    """Which document a token belongs to, unique in the micro-batch; -1 for padding. Equal ids may see each other. In a flat row a
    shared beginning has an id of its own."""
    labels_BT: Tensor
    """The token that each position must predict, already shifted, or -100. A document's last position has none."""
    source_ids_BT: Tensor
    """The source of each label; -1 where there is none."""
    clusters: tuple[Cluster, ...] | None = None
    """What follows what in a flat row; None for even rows."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MicroBatch:
        fields = {
            name: getattr(self, name).to(device, non_blocking=non_blocking) for name in self.__slots__ if name.endswith("_BT")
        }
        return replace(self, **fields)


def collate(rows: Sequence[Sequence[Document]], pad_id: int) -> MicroBatch:
    """Put documents side by side into rows, and fill the rows up to the longest."""
    width = max(sum(len(document.ids) for document in row) for row in rows)
    shape = (len(rows), width)
    inputs, positions = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64)
    documents, labels, sources = (np.full(shape, fill, np.int64) for fill in (-1, IGNORED, -1))
    number = 0
    for b, row in enumerate(rows):
        start = 0
        for document in row:
            end = start + len(document.ids)
            inputs[b, start:end] = document.ids
            positions[b, start:end] = np.arange(end - start)
            documents[b, start:end] = number
            labels[b, start : end - 1] = np.where(document.targets[1:], document.ids[1:], IGNORED)
            sources[b, start : end - 1] = np.where(document.targets[1:], document.source, -1)
            number, start = number + 1, end
        positions[b, start:] = np.arange(width - start)
    inputs_BT, positions_BT, documents_BT, labels_BT, sources_BT = map(
        torch.from_numpy, (inputs, positions, documents, labels, sources)
    )
    return MicroBatch(inputs_BT, positions_BT, documents_BT, labels_BT, sources_BT)


def flatten(documents: Sequence[Document], row: Sequence[Group] | None = None) -> MicroBatch:
    """A single row of documents without padding: of the groups of `row`, or each for itself."""
    row = [Group([position]) for position in range(len(documents))] if row is None else row
    laid_out: list[Cluster] = []
    pieces: list[tuple[NDArray[np.int32], ...]] = []
    for cluster, members in clusters(documents, row):
        laid_out.append(cluster)
        if cluster.prefix:
            pieces.append(_piece(members[0], 0, cluster.prefix))
        pieces += [_piece(document, cluster.prefix, len(document.ids)) for document in members]
    numbers = np.repeat(np.arange(len(pieces)), [len(piece[0]) for piece in pieces])
    inputs, positions, labels, sources = (
        torch.from_numpy(np.concatenate(parts).astype(np.int64))[None] for parts in zip(*pieces, strict=True)
    )
    return MicroBatch(inputs, positions, torch.from_numpy(numbers)[None], labels, sources, tuple(laid_out))


def _piece(document: Document, start: int, end: int) -> tuple[NDArray[np.int32], ...]:
    """Inputs, positions, labels and sources of a part of a document. The part before the last one predicts nothing."""
    labels, sources = np.full(end - start, IGNORED, np.int32), np.full(end - start, -1, np.int32)
    if end == len(document.ids):
        chosen = document.targets[start + 1 :]
        labels[:-1] = np.where(chosen, document.ids[start + 1 :], IGNORED)
        sources[:-1] = np.where(chosen, document.source, -1)
    return document.ids[start:end], np.arange(start, end, dtype=np.int32), labels, sources


def flat_rows(documents: Sequence[Document], rowing: Rowing, micro_tokens: int) -> list[list[Group]]:
    if rowing is Rowing.shared:
        return fill(documents, micro_tokens)
    rows = pack([len(document.ids) for document in documents], micro_tokens)
    return [[Group([position]) for position in row] for row in rows]


def one_by_one(documents: Sequence[Document], rowing: Rowing, micro_tokens: int) -> Iterator[MicroBatch]:
    """All of the documents, however many, each for itself: no two share a row that is filled up."""
    if rowing is Rowing.even:
        for group in cut([len(document.ids) for document in documents], micro_tokens):
            yield collate([[documents[position]] for position in group], pad_id=0)
    elif documents:
        for row in flat_rows(documents, rowing, micro_tokens):
            yield flatten(documents, row)


def weightless(pad_id: int, rowing: Rowing = Rowing.even) -> MicroBatch:
    """One token and nothing to predict, for a rank that must take part in a forward pass and has no example left."""
    nothing = Document(np.array([pad_id], np.int32), np.zeros(1, np.bool_), -1)
    return collate([[nothing]], pad_id) if rowing is Rowing.even else flatten([nothing])
