"""Flat rows hold every document once, no more tokens than asked, and what documents begin with a single time."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from babeltune.data.rows import IGNORED, Document, Rowing, flat_rows, flatten, weightless
from babeltune.data.sharing import LEAST_SHARED, fill

texts = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(1, 40), st.integers(0, 60)).map(
        lambda drawn: _document(*drawn),
    ),
    min_size=1,
    max_size=12,
)


def _document(template: int, shared: int, own: int, first_target: int) -> Document:
    """A beginning of one of four templates, and then what no other document says."""
    beginning = (np.arange(shared) * 7 + template * 1000).astype(np.int32)
    ids = np.concatenate([beginning, np.arange(own, dtype=np.int32) + np.int32(5000 + 50 * shared + own)])
    return Document(ids, np.arange(len(ids)) >= first_target, template)


@settings(deadline=None, max_examples=60)
@given(texts, st.integers(20, 200))
def test_no_row_holds_more_than_asked_and_every_document_is_in_one(documents: list[Document], capacity: int) -> None:
    rows = fill(documents, capacity)
    assert sorted(member for row in rows for group in row for member in group.members) == list(range(len(documents)))
    for row in rows:
        width = flatten(documents, row).input_ids_BT.shape[1]
        assert width <= capacity or sum(len(group.members) for group in row) == 1


@settings(deadline=None, max_examples=60)
@given(texts, st.integers(20, 200))
def test_documents_come_out_of_a_flat_row_as_they_went_in(documents: list[Document], capacity: int) -> None:
    for row in fill(documents, capacity):
        batch = flatten(documents, row)
        assert batch.clusters is not None
        start = 0
        for group, cluster in zip(row, batch.clusters, strict=True):
            beginning = slice(start, start + cluster.prefix)
            assert (batch.labels_BT[0, beginning] == IGNORED).all()
            start += cluster.prefix
            for member, rest in zip(group.members, cluster.rests, strict=True):
                own, document = slice(start, start + rest), documents[member]
                ids, positions = (
                    torch.cat([whole[0, beginning], whole[0, own]]) for whole in (batch.input_ids_BT, batch.position_ids_BT)
                )
                labels = torch.cat([batch.labels_BT[0, beginning], batch.labels_BT[0, own]])
                assert ids.tolist() == document.ids.tolist()
                assert positions.tolist() == list(range(len(document.ids)))
                assert labels[:-1].tolist() == np.where(document.targets[1:], document.ids[1:], IGNORED).tolist()
                assert (batch.source_ids_BT[0, own][labels[cluster.prefix :] != IGNORED] == document.source).all()
                start += rest
        assert start == batch.input_ids_BT.shape[1]


def test_a_beginning_ends_before_what_predicts_the_first_target() -> None:
    documents = [_document(0, 30, own, first_target=21) for own in (3, 9)]
    ((group,),) = fill(documents, 100)
    assert group.prefix == 20, "position 20 predicts the target at 21, another one for each document"


def test_short_beginnings_and_learned_ones_are_not_shared() -> None:
    for documents in (
        [_document(0, LEAST_SHARED - 1, own, 50) for own in (3, 9)],
        [_document(0, 30, own, 0) for own in (3, 9)],
    ):
        assert all(group.prefix == 0 for row in fill(documents, 100) for group in row)


def test_two_templates_make_two_groups() -> None:
    documents = [_document(number % 2, 20 + 10 * (number % 2), 5 + number, 40) for number in range(8)]
    (row,) = fill(documents, 10_000)
    assert [(group.prefix, len(group.members)) for group in row] == [(20, 4), (30, 4)]


def test_a_flat_row_without_sharing_has_each_document_by_itself() -> None:
    documents = [_document(0, 20, own, 25) for own in (5, 9, 12)]
    (row,) = flat_rows(documents, Rowing.flat, 1000)
    batch = flatten(documents, row)
    assert batch.clusters is not None
    assert sorted(cluster.rests for cluster in batch.clusters) == [(25,), (29,), (32,)]
    assert not any(cluster.prefix for cluster in batch.clusters)


def test_a_rank_without_examples_has_a_flat_row_too() -> None:
    batch = weightless(3, Rowing.shared)
    assert batch.clusters is not None
    assert batch.input_ids_BT.tolist() == [[3]]
    assert (batch.labels_BT == IGNORED).all()
