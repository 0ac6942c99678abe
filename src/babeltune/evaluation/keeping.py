"""Replies on disk as they come, so that a run that was killed while it asked goes on where it was."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from babeltune.records import Item, Reply
from babeltune.results import read_reply, writing


class Kept:
    """The replies of one evaluation so far. They are one file of JSON Lines, of which a killed run may leave half a last line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.replies: dict[str, Reply] = {}
        """By item."""
        sound = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
            try:
                reply = read_reply(line) if line.endswith(b"\n") else None
            except (ValueError, TypeError, KeyError):
                reply = None
            if reply is None:
                break
            self.replies[reply.item] = reply
            sound += len(line)
        if path.exists() and sound < path.stat().st_size:
            with writing(path):
                os.truncate(path, sound)

    def add(self, replies: Sequence[Reply]) -> None:
        """Append replies, and return when they would survive a power cut. Raises OutputError when they cannot be written."""
        self.replies |= {reply.item: reply for reply in replies}
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a", encoding="utf-8") as file:
                file.write("".join(json.dumps(asdict(reply), ensure_ascii=False) + "\n" for reply in replies))
                file.flush()
                os.fsync(file.fileno())

    def end(self) -> None:
        """Remove the file: all of it is written elsewhere."""
        self._path.unlink(missing_ok=True)


class Running:
    """A list of items that is answered batch by batch: what is left, what there is, and how fast it goes."""

    def __init__(
        self, items: Sequence[Item], batches: Sequence[Sequence[int]], kept: Kept | None, tell: Callable[..., None]
    ) -> None:
        self._items = items
        self._batches = batches
        self._kept = kept
        self._tell = tell
        wanted = {item.id for item in items}
        self._replies = {name: reply for name, reply in kept.replies.items() if name in wanted} if kept else {}
        self._first = len(self._replies)
        self._start = time.monotonic()

    def missing(self) -> Iterator[Sequence[int]]:
        """The batches, places of items each, that lack a reply. They are whole, so that one is asked as if nothing had happened."""
        self._say()
        for places in self._batches:
            if any(self._items[place].id not in self._replies for place in places):
                yield places

    def add(self, replies: Sequence[Reply]) -> None:
        """Take in the replies of a batch."""
        if self._kept is not None:
            self._kept.add(replies)
        self._replies |= {reply.item: reply for reply in replies}
        self._say()

    def replies(self) -> list[Reply]:
        """All of them, in the items' order."""
        return [self._replies[item.id] for item in self._items]

    def _say(self) -> None:
        seconds = time.monotonic() - self._start
        rate = (len(self._replies) - self._first) / seconds if seconds > 0 else 0.0
        note = f"{rate:.1f} items/s" if rate else ""
        self._tell("progress", phase="answering", done=len(self._replies), total=len(self._items), note=note)
