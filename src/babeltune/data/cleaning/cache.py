"""What was paid for once: plain values under the key of what made them, in a file that several processes may share."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from babeltune.errors import DataError, problem

BUSY_SECONDS = 60.0
"""How long to wait for another process that writes."""
_AT_ONCE = 500


class Cache:
    """A SQLite file of key to JSON value. A value that was put survives the end of the process, however it ends.

    Raises DataError for a file that is damaged, or a folder that cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=NORMAL")
            self._file.execute("CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        except (sqlite3.Error, OSError) as error:
            raise self._broken(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def get(self, keys: Iterable[str]) -> dict[str, Any]:
        """Those of the keys that are there, with their values."""
        keys = list(keys)
        found: dict[str, Any] = {}
        try:
            for start in range(0, len(keys), _AT_ONCE):
                part = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                rows = self._file.execute(f"SELECT key, value FROM kept WHERE key IN ({marks})", part)  # noqa: S608
                found.update((key, json.loads(value)) for key, value in rows)
        except (sqlite3.Error, ValueError) as error:
            raise self._broken(error) from error
        return found

    def put(self, values: Mapping[str, Any]) -> None:
        """Write the values, all or none of them; an older value under the same key goes."""
        rows = [(key, json.dumps(value)) for key, value in values.items()]
        try:
            self._file.execute("BEGIN IMMEDIATE")
            self._file.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?)", rows)
            self._file.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._broken(error) from error
        finally:  # Ctrl-C may come between the two
            if self._file.in_transaction:
                self._file.rollback()

    def _broken(self, error: Exception) -> DataError:
        got = f"a file that cannot be used ({error})"
        return DataError(problem(str(self._path), got, "a sound SQLite file on a local disk with room", "deleting it"))


def key(*parts: object) -> str:
    """sha256 over plain values, in hex. Half a pair of surrogates in a text is no hindrance."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
