"""Reads back what a W&B run has written to its file: the framing of LevelDB's logs around protocol buffers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

FILE_HEADER_BYTES, HEADER_BYTES, BLOCK_BYTES = 7, 7, 32 * 1024
FULL, FIRST, LAST = 1, 2, 4


@dataclass
class Run:
    """One run of one process."""

    id: str = ""
    name: str = ""
    group: str = ""
    project: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def runs(folder: Path) -> list[Run]:
    """The runs that the cell in a folder has written, oldest first."""
    return [read(path) for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]


def read(path: Path) -> Run:
    run = Run()
    for record in _records(path.read_bytes()):
        match record.WhichOneof("record_type"):
            case "run":
                run.id, run.name = record.run.run_id, record.run.display_name
                run.group, run.project = record.run.run_group, record.run.project
                run.config |= _values(record.run.config.update)
            case "config":
                run.config |= _values(record.config.update)
            case "history":
                run.history.append(_values(record.history.item))
            case "summary":
                run.summary |= _values(record.summary.update)
            case "exit":
                run.exit_code = record.exit.exit_code
    return run


def _records(raw: bytes) -> Iterator[Any]:
    """Records in order, up to one that was cut off."""
    at, parts = FILE_HEADER_BYTES, b""
    while at + HEADER_BYTES <= len(raw):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        length, kind = int.from_bytes(raw[at + 4 : at + 6], "little"), raw[at + 6]
        if left < HEADER_BYTES or (length, kind) == (0, 0):
            at += left
            continue
        part = raw[at + HEADER_BYTES : at + HEADER_BYTES + length]
        at += HEADER_BYTES + length
        if len(part) < length:
            return
        parts = part if kind in (FULL, FIRST) else parts + part
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record


def _values(items: Iterable[Any]) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
