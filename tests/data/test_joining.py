"""Texts that are joined and cut into blocks lose nothing, learn nothing twice, and keep to their source."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babeltune.data.batching import Examples
from babeltune.data.joining import Joined
from babeltune.data.packing import pack
from babeltune.data.store import TokenStore, build_store
from babeltune.records import Conversation, Message, Segment

BEGIN, END = 1, 2


class Letters:
    """Stands for an encoder: a character is a token."""

    def encode(self, conversations: list[list[Segment]]) -> list[list[list[int]]]:
        return [[[ord(letter) for letter in segment.text] for segment in segments] for segments in conversations]


def _render(conversation: Conversation) -> list[Segment]:
    text = conversation.messages[0].text
    return [Segment(chr(BEGIN), False, True), Segment(text, True), Segment(chr(END), True, True)]


def _text(number: int, length: int) -> str:
    return "".join(chr(1000 * (number + 1) + i) for i in range(length))


def _store(folder: Path, lengths: list[int], max_tokens: int, heldout: int | None = None) -> TokenStore:
    rows = [Conversation((Message("text", _text(n, length)),), "s", "zh", f"s:{n}") for n, length in enumerate(lengths)]
    return build_store({"texts": lengths}, folder, rows, _render, Letters(), max_tokens, lambda c: c.place == f"s:{heldout}")


def _stream(blocks: Joined) -> list[int]:
    """The tokens of all blocks, each once."""
    rows = [blocks[i][0].tolist() for i in range(len(blocks))]
    return [*rows[0], *(id for row in rows[1:] for id in row[1:])] if rows else []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(2, 12), st.integers(0, 3))
def test_every_text_is_there_whole_between_its_marks_and_every_token_is_learned_once(
    lengths: list[int], max_tokens: int, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = _store(Path(folder), lengths, max_tokens)
        blocks = Joined(store, store.pool, max_tokens, f"{seed}/s")
        stream = _stream(blocks)
        texts = "".join(map(chr, stream)).split(chr(BEGIN))
        assert sorted(texts[1:]) == sorted(f"{_text(n, length)}{chr(END)}" for n, length in enumerate(lengths))
        assert [len(blocks[i][0]) for i in range(len(blocks))] == blocks.lengths.tolist()
        assert set(blocks.lengths[:-1].tolist()) <= {max_tokens}
        assert 2 <= blocks.lengths[-1] <= max_tokens
        for i in range(len(blocks)):
            ids, targets = blocks[i]
            assert targets.tolist() == [False] + [True] * (len(ids) - 1)
            assert i == 0 or ids[0] == blocks[i - 1][0][-1]
        assert blocks.target_counts.sum() == len(stream) - 1


def test_the_order_of_texts_is_random_and_depends_on_its_name_alone(tmp_path: Path) -> None:
    store = _store(tmp_path, [5] * 30, 8)
    first = _stream(Joined(store, store.pool, 8, "0/s"))
    assert first == _stream(Joined(store, np.flip(store.pool), 8, "0/s"))
    assert first != _stream(Joined(store, store.pool, 8, "1/s"))
    assert [id for id in first if id >= 1000] != sorted(id for id in first if id >= 1000)


def test_a_text_that_is_held_out_is_in_no_block(tmp_path: Path) -> None:
    store = _store(tmp_path, [20, 20, 20], 8, heldout=1)
    stream = _stream(Joined(store, store.pool, 8, "0/s"))
    assert stream.count(END) == 2
    assert not {id for id in stream if 2000 <= id < 3000}


def test_a_text_that_is_taken_twice_is_there_twice(tmp_path: Path) -> None:
    store = _store(tmp_path, [3, 4], 8)
    stream = _stream(Joined(store, np.repeat(store.pool, 2), 8, "0/s"))
    assert stream.count(END) == 4


def test_no_text_is_no_block(tmp_path: Path) -> None:
    store = _store(tmp_path, [3], 8)
    assert len(Joined(store, store.pool[:0], 8, "0/s")) == 0


def test_blocks_are_examples_and_fill_their_rows(tmp_path: Path) -> None:
    first, second = (_store(tmp_path, [7, 30, 4 + extra], 10) for extra in (0, 1))
    blocks = [Joined(store, store.pool, 10, "0/s") for store in (first, second)]
    examples = Examples([(part, np.arange(len(part), dtype=np.int32)) for part in blocks])
    assert len(examples) == len(blocks[0]) + len(blocks[1])
    assert {examples[len(blocks[0])].source, examples[0].source} == {0, 1}
    assert all(len(row) == 1 for row in pack(examples.lengths[: len(blocks[0]) - 1], 10)), "nothing fits beside a whole block"
    again = pickle.loads(pickle.dumps(examples))
    assert again[2].ids.tolist() == examples[2].ids.tolist()


@pytest.mark.parametrize("max_tokens", [1])
def test_a_block_of_one_token_has_nothing_to_learn(max_tokens: int, tmp_path: Path) -> None:
    store = _store(tmp_path, [3], 8)
    assert len(Joined(store, store.pool, max_tokens, "0/s")) == 0
