"""Conversations on disk, compressed, a few in memory at a time."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from babeltune.data.cleaning.kinds import Outcome
from babeltune.records import Conversation, Dropped, Message

LEVEL = 1
"""Of compression: the fastest; text shrinks to a third."""


class Spool:
    """A file that outcomes are appended to and read from again, in the same order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._length = 0
        self._open = contextlib.ExitStack()
        self._file: TextIO | None = None

    def __len__(self) -> int:
        return self._length

    def __enter__(self) -> Self:
        import zstandard

        raw = self._open.enter_context(self.path.open("wb"))
        packed = self._open.enter_context(zstandard.ZstdCompressor(level=LEVEL).stream_writer(raw))
        self._file = self._open.enter_context(io.TextIOWrapper(packed, encoding="utf-8", errors="surrogatepass", newline="\n"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file = None
        self._open.close()

    def append(self, outcome: Outcome) -> None:
        assert self._file is not None, "a spool is written to inside its `with`"
        self._file.write(json.dumps(plain(outcome), ensure_ascii=False, separators=(",", ":")) + "\n")
        self._length += 1

    def __iter__(self) -> Iterator[Outcome]:
        return read(self.path)


class Kept(Spool):
    """A spool of conversations alone: the corpus that a step goes through."""

    def __iter__(self) -> Iterator[Conversation]:
        for outcome in read(self.path):
            assert isinstance(outcome, Conversation)
            yield outcome


def read(path: Path) -> Iterator[Outcome]:
    """The outcomes in a spool's file."""
    import zstandard

    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as packed:
        for line in io.TextIOWrapper(packed, encoding="utf-8", errors="surrogatepass", newline="\n"):
            yield outcome_of(json.loads(line))


def plain(outcome: Outcome) -> dict[str, Any]:
    """As plain values for JSON."""
    if isinstance(outcome, Dropped):
        return {
            "place": outcome.place,
            "reason": outcome.reason,
            "detail": outcome.detail,
            "language": outcome.language,
            "is_bad": outcome.is_bad,
        }
    messages = [[message.role, message.text, message.input] for message in outcome.messages]
    return {
        "place": outcome.place,
        "source": outcome.source,
        "language": outcome.language,
        "prompt": outcome.prompt,
        "messages": messages,
    }


def outcome_of(values: dict[str, Any]) -> Outcome:
    """The counterpart of `plain`."""
    if "reason" in values:
        return Dropped(**values)
    messages = tuple(Message(role, text, given) for role, text, given in values.pop("messages"))
    return Conversation(messages=messages, **values)
