"""What a source's tokens are kept as, and when they are made anew."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from babeltune.data import processes
from babeltune.data import store as store_module
from babeltune.data.store import build_store, open_store
from babeltune.errors import DataError
from babeltune.records import Conversation, Dropped, Message, Segment


class Letters:
    """Stands for an encoder: a character is a token."""

    def encode(self, conversations: list[list[Segment]]) -> list[list[list[int]]]:
        return [[[ord(letter) for letter in segment.text] for segment in segments] for segments in conversations]


def _render(conversation: Conversation) -> list[Segment]:
    return [Segment(message.text, message.role in ("assistant", "text")) for message in conversation.messages]


def _conversation(number: int, answer: str = "yes") -> Conversation:
    messages = (Message("user", f"question {number}?"), Message("assistant", answer))
    return Conversation(messages, "toy", ["zh", "vi", "en"][number % 3], f"toy:{number}")


def _build(cache: Path, rows: Any, **changes: Any) -> store_module.TokenStore:
    parts = {"content": "c", "template": "t"} | changes
    return build_store(parts, cache, rows, _render, Letters(), 40, lambda c: c.place.endswith("7"))


def test_several_processes_make_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "CHUNK", 3)
    rows: list[Conversation | Dropped] = [_conversation(number, "yes" * (1 + number)) for number in range(40)]
    rows.insert(4, Dropped("toy:x", "invalid JSON", "line ends", is_bad=True))
    rows.insert(9, Conversation((Message("text", "d" * 100),), "toy", "en", "toy:doc"))
    rows.insert(17, Conversation((Message("user", "?"),), "toy", "en", "toy:none"))
    made = []
    for count in (1, 3):
        monkeypatch.setattr(processes, "cores", lambda count=count: count)
        folder = _build(tmp_path / str(count), rows).folder
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert len(made[0]) == 8
    assert made[0] == made[1]


def test_a_store_gives_back_rows_languages_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "CHUNK", 3)
    monkeypatch.setattr(store_module, "CHUNK_CHARACTERS", 90)
    rows: list[Conversation | Dropped] = [_conversation(number, "yes" * (1 + number)) for number in range(20)]
    rows.insert(4, Dropped("toy:x", "invalid JSON", "line ends", is_bad=True))
    rows.insert(6, Dropped("toy:y", "empty answer", language="vi"))
    rows.insert(9, Conversation((Message("text", "d" * 100),), "toy", "en", "toy:doc"))
    store = _build(tmp_path, rows)
    assert len(store) == 20 + 3
    kept = [row for row in rows if isinstance(row, Conversation)]
    for number in range(len(store)):
        ids, targets = store[number]
        conversation = rows[store.origins[number]]
        assert store.language_names[store.languages[number]] == conversation.language
        assert store.is_heldout[number] == conversation.place.endswith("7")
        assert store.lengths[number] == len(ids) <= 40
        assert store.target_counts[number] == targets.sum() > 0
        if conversation.messages[0].role == "user":
            assert "".join(map(chr, ids)) == "".join(m.text for m in conversation.messages)[:40]
            assert set(map(chr, ids[targets])) <= set("yes")
    assert sorted(chain(store.pool, store.heldout)) == list(range(23))
    assert sum(counts.found for counts in store.counts.values()) == len(rows)
    assert sum(counts.kept for counts in store.counts.values()) == len(kept)
    assert (store.counts[""].bad, store.counts[""].dropped) == (1, {"invalid JSON": 1})
    assert store.counts["vi"].dropped == {"empty answer": 1}, "a drop counts in its language where it has one"
    assert store.examples == {"invalid JSON": ["toy:x: line ends"], "empty answer": ["toy:y"]}
    assert sum(counts.cut_answers for counts in store.counts.values()) == sum(
        len(f"question {n}?") + 3 + 3 * n > 40 for n in range(20)
    )


def test_a_store_does_not_depend_on_how_it_was_chunked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _build(tmp_path / "a", map(_conversation, range(50)))
    monkeypatch.setattr(store_module, "CHUNK", 7)
    chunked = _build(tmp_path / "b", map(_conversation, range(50)))
    files = sorted(path.name for path in whole.folder.iterdir())
    assert len(files) == 8
    assert all((whole.folder / name).read_bytes() == (chunked.folder / name).read_bytes() for name in files)


def test_a_store_is_built_once_and_anew_when_content_template_or_code_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unread() -> Iterator[Conversation]:
        raise AssertionError("read again")
        yield

    assert open_store({"content": "c", "template": "t"}, tmp_path, 40) is None
    first = _build(tmp_path, [_conversation(1)])
    assert _build(tmp_path, unread()).folder == first.folder
    assert open_store({"template": "t", "content": "c"}, tmp_path, 40) is not None
    assert open_store({"content": "c", "template": "t"}, tmp_path, 41) is None
    assert _build(tmp_path, [_conversation(1), _conversation(2)], content="edited").lengths.tolist() == [14, 14]
    assert _build(tmp_path, [_conversation(1, "no")], template="edited").lengths.tolist() == [13]
    monkeypatch.setattr(store_module, "TOKENIZING_VERSION", 999)
    assert _build(tmp_path, [_conversation(1, "changed")]).lengths.tolist() == [18]


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def failing() -> Iterator[Conversation]:
        yield _conversation(1)
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        _build(tmp_path, failing())
    assert list((tmp_path / "tokens").iterdir()) == []
    assert len(_build(tmp_path, [_conversation(1)])) == 1


def test_a_source_without_a_row_makes_an_empty_store(tmp_path: Path) -> None:
    store = _build(tmp_path, [Dropped("toy:1", "empty answer")])
    assert (len(store), store.lengths.tolist(), store.languages.tolist(), store.pool.tolist()) == (0, [], [], [])


def _build_together(cache: Path, barrier: Any, results: Any) -> None:
    def rows() -> Iterator[Conversation]:
        barrier.wait(20)
        yield from map(_conversation, range(30))
        barrier.wait(20)

    results.put(len(_build(cache, rows())))


def test_two_processes_that_build_the_same_store_at_once_both_succeed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_build_together, args=(tmp_path, barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=30) for _ in workers] == [30, 30]
    for worker in workers:
        worker.join(10)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert [path.name.startswith(".") for path in (tmp_path / "tokens").iterdir()] == [False]


def test_a_store_that_was_cut_off_is_refused_where_its_rows_end(tmp_path: Path) -> None:
    store = _build(tmp_path, map(_conversation, range(5)))
    ids = store.folder / "ids.npy"
    os.truncate(ids, ids.stat().st_size - 4)
    assert len(store[3][0]) == 14
    with pytest.raises(DataError, match=r"ids\.npy: got an end before its last row; expected a whole file; try removing .*"):
        store[4]


def test_a_store_reads_the_same_in_another_process(tmp_path: Path) -> None:
    store = _build(tmp_path, map(_conversation, range(5)))
    again = pickle.loads(pickle.dumps(store))
    with multiprocessing.get_context("fork").Pool(1) as workers:
        assert workers.apply(_ids, (2, store)) == store[2][0].tolist() == again[2][0].tolist()


def _ids(row: int, store: store_module.TokenStore) -> list[int]:
    ids: list[int] = store[row][0].tolist()
    return ids


def test_long_texts_make_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "CHUNK_CHARACTERS", 250)
    books = [Conversation((Message("text", "d" * 100),), "toy", "en", f"toy:{number}") for number in range(7)]
    assert [len(chunk) for chunk in store_module._chunks(books)] == [3, 3, 1]
