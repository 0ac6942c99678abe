"""What lies in the folder of a cell that a cluster runs, for whoever watches, now or later.

job.json    written by whoever submits: which job has the cell
told.json   written by the job: how far it is, and how it ended
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from babeltune.progress import Standing
from babeltune.results import read_json, write_json

TOLD_SECONDS = 2.0
"""How often a job writes down how far it is."""
ENDS = ("done", "failed", "preempted", "held")
"""The last word of an attempt at a cell."""


@dataclass(frozen=True, slots=True)
class Record:
    """Which job has a cell."""

    job: str
    """Its id: 12, or 12_3 in an array."""
    name: str
    evaluation: str
    log: str
    """What Slurm and Python said outside the cell's own train.log."""


def note(folder: Path, record: Record) -> None:
    write_json(folder / "job.json", asdict(record))


def noted(folder: Path) -> Record | None:
    """The last job that had a cell, or None when none had."""
    path = folder / "job.json"
    return Record(**read_json(path)) if path.exists() else None


class Told:
    """A job's words about its cell, kept in `told.json`.

    Of a cell's processes the first one speaks; the others are heard when they fail.
    """

    def __init__(self, folder: Path, job: str, *, is_first: bool = True) -> None:
        self._path = folder / "told.json"
        self._job = job
        self._is_first = is_first
        self._phase: object = None
        self._next = 0.0
        self._started = time.monotonic()
        self.last = ""
        """The last event that ends an attempt, or nothing."""

    def send(self, event: str, **facts: Any) -> None:
        if event in ENDS:
            self.last = event
            facts["seconds"] = time.monotonic() - self._started
        elif event != "progress" or (facts["phase"] == self._phase and time.monotonic() < self._next):
            return
        self._phase, self._next = facts.get("phase"), time.monotonic() + TOLD_SECONDS
        if self._is_first or event == "failed":
            write_json(self._path, {"job": self._job, "event": event, **facts})


def heard(folder: Path, job: str) -> dict[str, Any]:
    """The last that a job said of its cell; empty when it has said nothing yet."""
    path = folder / "told.json"
    told: dict[str, Any] = read_json(path) if path.exists() else {}
    return told if told.get("job") == job else {}


def show(standing: Standing, told: dict[str, Any]) -> None:
    """Put a running job's words into the picture of the grid."""
    if standing.state != "running":
        standing.state, standing.started = "running", time.monotonic()
        standing.phase, standing.done, standing.total, standing.note = "starting", 0, 0, ""
    if told.get("event") != "progress":
        return
    standing.hear(phase=told["phase"], done=told["done"], total=told["total"], note=told.get("note", ""))


def end(standing: Standing, state: str, note: str = "", seconds: float = 0.0) -> None:
    standing.state, standing.note, standing.seconds = state, note, seconds
