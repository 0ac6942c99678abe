"""The tokens of a source, in a folder known by what they were made from: made once, shared by every mix. No torch."""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import json
import os
import shutil
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy
from numpy.typing import NDArray

from babeltune.data import processes
from babeltune.data.tokenizing import (
    TOKENIZING_VERSION,
    Encoder,
    Fitted,
    Flags,
    Ids,
    Tokens,
    fit_conversation,
    fit_document,
)
from babeltune.errors import DataError, problem
from babeltune.records import Conversation, Dropped, Segment

STORE_VERSION = 2
"""Part of every store's key. Raised when the same rows would give other files or counts."""
CHUNK = 2048
"""Conversations encoded and written at a time; memory grows with this and not with the source."""
CHUNK_CHARACTERS = 2**20
"""The same in characters, whichever is reached first: a book is longer than a thousand conversations."""
EXAMPLES_PER_REASON = 3
_NO_IDS: Ids = np.empty(0, np.int32)
_NO_FLAGS: Flags = np.empty(0, np.bool_)


@dataclass(kw_only=True)
class Counts:
    """What became of the rows of one source in one language."""

    found: int = 0
    """Rows read, broken ones included."""
    kept: int = 0
    """Conversations and documents with at least one row in the store."""
    cut_answers: int = 0
    """Conversations whose only answer is cut and has no end mark."""
    dropped_turns: int = 0
    """Answers left out, with their questions, from the end of conversations that are too long."""
    bad: int = 0
    """Those dropped rows that are broken, for `data.max_bad_fraction`."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Rows left out, by reason."""


class TokenStore:
    """The tokens of one source, on disk; opening it reads almost nothing.

    What there is for a row is mapped into memory. Its tokens are read from the file each time: pages of a mapped file count as the
    process's own, and a pass over the mix would make it look as large as the store.

    >>> ids, targets = store[7]
    >>> store.lengths[store.pool].sum()
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        self.counts: dict[str, Counts] = {language: Counts(**counts) for language, counts in about["counts"].items()}
        """By language; "" for rows too broken to have one."""
        self.language_names: tuple[str, ...] = tuple(about["languages"])
        self.examples: dict[str, list[str]] = about["examples"]
        """Drop reason to the first few places and details, for messages."""
        self.offsets: NDArray[np.int64] = self._load("offsets")
        self.target_counts: NDArray[np.int32] = self._load("target_counts")
        self.origins: NDArray[np.int64] = self._load("origins")
        """Which of the conversations given, counted from 0 and drops included, each row comes from."""
        self.is_heldout: Flags = self._load("is_heldout")
        self._ids = _Tokens(folder / "ids.npy")
        self._targets = _Tokens(folder / "targets.npy")
        self.languages: NDArray[np.uint16] = self._load("languages")
        """Language of each row, as its place in `language_names`."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> tuple[Ids, Flags]:
        start, end = int(self.offsets[row]), int(self.offsets[row + 1])
        return self._ids.read(start, end), self._targets.read(start, end)

    def __reduce__(self) -> tuple[type[TokenStore], tuple[Path]]:
        return TokenStore, (self.folder,)

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each row."""
        lengths = np.empty(len(self), np.int32)
        return np.subtract(self.offsets[1:], self.offsets[:-1], out=lengths, casting="unsafe")

    @cached_property
    def pool(self) -> NDArray[np.int32]:
        """The rows that may be trained on."""
        return np.flatnonzero(~self.is_heldout).astype(np.int32)

    @cached_property
    def heldout(self) -> NDArray[np.int32]:
        """The rows kept away from training."""
        return np.flatnonzero(self.is_heldout).astype(np.int32)

    def _load(self, name: str) -> NDArray[Any]:
        loaded: NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return loaded


class _Tokens:
    """A one-dimensional .npy file of which pieces are read. Threads and forked processes may share it: it has no position."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            npy.read_magic(file)
            _, _, self._dtype = npy.read_array_header_1_0(file)
            self._start = file.tell()
        self._path = path
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def read(self, start: int, end: int) -> NDArray[Any]:
        size = self._dtype.itemsize
        content = os.pread(self._file, (end - start) * size, self._start + start * size)
        if len(content) < (end - start) * size:
            raise DataError(problem(str(self._path), "an end before its last row", "a whole file", f"removing {self._path.parent}"))
        return np.frombuffer(content, self._dtype)


def open_store(key_parts: Mapping[str, object], cache: Path, max_tokens: int) -> TokenStore | None:
    """The store with these key parts, or None when it has yet to be built."""
    folder = _folder(key_parts, cache, max_tokens)
    return TokenStore(folder) if folder.is_dir() else None


def build_store(
    key_parts: Mapping[str, object],
    cache: Path,
    conversations: Iterable[Conversation | Dropped],
    render: Callable[[Conversation], list[Segment]],
    encoder: Encoder,
    max_tokens: int,
    is_heldout: Callable[[Conversation], bool],
) -> TokenStore:
    """The store with these key parts, built first if it is not there. `conversations` is read only then.

    The key parts name whatever decides the rows: content and its cleaning, template, tokenizer, held-out rule. The
    store appears all at once: of two processes that build the same one, the second to finish throws its copy away.
    """
    found = open_store(key_parts, cache, max_tokens)
    if found is not None:
        return found
    folder = _folder(key_parts, cache, max_tokens)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    unfinished.mkdir()
    try:
        make = functools.partial(_make, render=render, encoder=encoder, max_tokens=max_tokens, is_heldout=is_heldout)
        chunks = processes.ordered(make, _chunks(conversations), processes.cores())
        with closing(_Writer(unfinished)) as writer, closing(chunks), _collecting_young():
            for made in chunks:
                writer.add(made)
                gc.collect(1)
            writer.finish()
        _publish(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return TokenStore(folder)


@contextlib.contextmanager
def _collecting_young() -> Iterator[None]:
    """Leave it to the caller when cycles are looked for: going through all that torch brings took a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _folder(key_parts: Mapping[str, object], cache: Path, max_tokens: int) -> Path:
    parts = {"parts": dict(key_parts), "max_tokens": max_tokens, "version": [STORE_VERSION, TOKENIZING_VERSION]}
    key = hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    return cache / "tokens" / key


def _chunks(conversations: Iterable[Conversation | Dropped]) -> Iterator[list[tuple[int, Conversation | Dropped]]]:
    chunk: list[tuple[int, Conversation | Dropped]] = []
    room = CHUNK_CHARACTERS
    for numbered in enumerate(conversations):
        chunk.append(numbered)
        if isinstance(numbered[1], Conversation):
            room -= sum(len(message.text) + len(message.input) for message in numbered[1].messages)
        if len(chunk) == CHUNK or room <= 0:
            yield chunk
            chunk, room = [], CHUNK_CHARACTERS
    if chunk:
        yield chunk


@dataclass(frozen=True, slots=True)
class _Made:
    """What became of a chunk: the conversations dropped, those kept, and the rows of these, one after another."""

    dropped: list[Dropped]
    kept: list[tuple[str, Fitted]]
    """Language of each, and what is left of it without its rows."""
    ids: Ids
    targets: Flags
    lengths: list[int]
    """Of each row; so are the others."""
    origins: list[int]
    languages: list[str]
    is_heldout: list[bool]


def _make(
    chunk: list[tuple[int, Conversation | Dropped]],
    render: Callable[[Conversation], list[Segment]],
    encoder: Encoder,
    max_tokens: int,
    is_heldout: Callable[[Conversation], bool],
) -> _Made:
    conversations = [(origin, item) for origin, item in chunk if isinstance(item, Conversation)]
    segments = [render(conversation) for _, conversation in conversations]
    made = _Made([item for _, item in chunk if isinstance(item, Dropped)], [], _NO_IDS, _NO_FLAGS, [], [], [], [])
    rows: list[Tokens] = []
    for (origin, conversation), parts, ids in zip(conversations, segments, encoder.encode(segments), strict=True):
        is_document = any(message.role == "text" for message in conversation.messages)
        fitted = (fit_document if is_document else fit_conversation)(parts, ids, max_tokens)
        if fitted.reason:
            made.dropped.append(Dropped(conversation.place, fitted.reason, language=conversation.language))
            continue
        made.kept.append((conversation.language, replace(fitted, rows=())))
        rows += fitted.rows
        made.origins.extend(origin for _ in fitted.rows)
        made.languages.extend(conversation.language for _ in fitted.rows)
        held = is_heldout(conversation)
        made.is_heldout.extend(held for _ in fitted.rows)
    gc.collect(1)
    made.lengths.extend(len(row.ids) for row in rows)
    return replace(
        made,
        ids=np.concatenate([_NO_IDS, *(row.ids for row in rows)]),
        targets=np.concatenate([_NO_FLAGS, *(row.targets for row in rows)]),
    )


def _publish(unfinished: Path, folder: Path) -> None:
    try:
        os.rename(unfinished, folder)
    except OSError:
        if not folder.is_dir():
            raise


_COLUMNS = {
    "ids": np.int32,
    "targets": np.bool_,
    "offsets": np.int64,
    "target_counts": np.int32,
    "origins": np.int64,
    "languages": np.uint16,
    "is_heldout": np.bool_,
}


class _Writer:
    """A store while it grows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._columns = {name: _Column(folder / f"{name}.npy", dtype) for name, dtype in _COLUMNS.items()}
        self._columns["offsets"].append([0])
        self._end = 0
        self._languages: dict[str, int] = {}
        self._counts: dict[str, Counts] = {}
        self._examples: dict[str, list[str]] = {}

    def drop(self, dropped: Dropped) -> None:
        counts = self._counts.setdefault(dropped.language, Counts())
        counts.found += 1
        counts.bad += dropped.is_bad
        counts.dropped[dropped.reason] = counts.dropped.get(dropped.reason, 0) + 1
        examples = self._examples.setdefault(dropped.reason, [])
        if len(examples) < EXAMPLES_PER_REASON:
            examples.append(f"{dropped.place}: {dropped.detail}" if dropped.detail else dropped.place)

    def add(self, made: _Made) -> None:
        for dropped in made.dropped:
            self.drop(dropped)
        for language, fitted in made.kept:
            counts = self._counts.setdefault(language, Counts())
            counts.found += 1
            counts.kept += 1
            counts.cut_answers += fitted.is_cut
            counts.dropped_turns += fitted.dropped_turns
        starts = np.cumsum([0, *made.lengths])
        code = {language: self._languages.setdefault(language, len(self._languages)) for language in dict.fromkeys(made.languages)}
        self._columns["ids"].append(made.ids)
        self._columns["targets"].append(made.targets)
        self._columns["offsets"].append(self._end + starts[1:])
        self._columns["target_counts"].append(np.diff(np.concatenate([[0], np.cumsum(made.targets)])[starts]))
        self._columns["origins"].append(made.origins)
        self._columns["languages"].append([code[language] for language in made.languages])
        self._columns["is_heldout"].append(made.is_heldout)
        self._end += int(starts[-1])

    def close(self) -> None:
        for column in self._columns.values():
            column.close()

    def finish(self) -> None:
        """Write what is not an array; the store is complete after that."""
        counts = {language: asdict(counts) for language, counts in self._counts.items()}
        about = {"languages": list(self._languages), "counts": counts, "examples": self._examples}
        with (self._folder / "about.json").open("w", encoding="utf-8") as file:
            json.dump(about, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())


class _Column:
    """A one-dimensional .npy file that is written piece by piece; its header says the length once it is closed."""

    def __init__(self, path: Path, dtype: npt.DTypeLike) -> None:
        self._file = path.open("w+b")
        self._dtype = np.dtype(dtype)
        self._length = 0
        self._write_header()

    def append(self, values: npt.ArrayLike) -> None:
        array = np.asarray(values, self._dtype)
        self._file.write(array.tobytes())
        self._length += len(array)

    def close(self) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def _write_header(self) -> None:
        # numpy leaves room in the header for the longest length there can be, so writing it again moves nothing.
        shape = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self._length,)}
        npy.write_array_header_1_0(self._file, shape)
