"""The live picture of a grid: a line per cell on a terminal, a line per change anywhere else."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from babeltune.cells import Cell

PLAIN_SECONDS = 10.0
"""How often a running cell is mentioned where there is no terminal."""


@dataclass(slots=True)
class Standing:
    """Where one cell of a grid stands."""

    cell: Cell
    state: str = "waiting"
    """waiting, queued (by a cluster), running, held (by another process), done, kept (done before), failed, or preempted."""
    note: str = ""
    phase: str = ""
    done: int = 0
    total: int = 0
    started: float = 0.0
    phase_started: float = 0.0
    phase_first: int = 0
    """What was done of the phase when it was first heard of: a cell that goes on has done that before."""
    seconds: float = 0.0
    not_before: float = 0.0
    """When a cell that another process holds is asked for again."""

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "kept", "failed", "preempted")

    def hear(self, *, phase: str, done: int, total: int, note: str = "") -> None:
        """Take in how far a cell says it is."""
        if self.phase != phase:
            self.phase_started, self.phase_first = time.monotonic(), done
        self.phase, self.done, self.total, self.note = phase, done, total, note


class Picture(Protocol):
    """Whoever shows where a list of cells stands."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *failure: object) -> None: ...

    def show(self) -> None: ...


class Progress:
    """Shows where a list of cells stands until it is closed. On standard error, or on another stream."""

    def __init__(self, standings: list[Standing], stream: TextIO | None = None) -> None:
        self._standings = standings
        self._console = Console(stderr=True) if stream is None else Console(file=stream)
        self._live = Live(console=self._console, refresh_per_second=4) if self._console.is_terminal else None
        self._said: dict[int, str] = {}
        self._last = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self.show()
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def show(self) -> None:
        if self._live is not None:
            self._live.update(self._table())
        else:
            self._lines()

    def _table(self) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        for number, standing in enumerate(self._standings, 1):
            style = {"failed": "red", "done": "green", "kept": "dim", "running": "bold"}.get(standing.state, "")
            table.add_row(f"{number}/{len(self._standings)}", standing.cell.folder.name, state_of(standing), style=style)
        return table

    def _lines(self) -> None:
        often = time.monotonic() - self._last > PLAIN_SECONDS
        for number, standing in enumerate(self._standings):
            changed = self._said.get(number) != standing.state and standing.state != "waiting"
            if changed or (often and standing.state == "running"):
                line = f"[{number + 1}/{len(self._standings)}] {standing.cell.folder.name}: {state_of(standing)}"
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)
                self._said[number] = standing.state
        if often:
            self._last = time.monotonic()


def state_of(standing: Standing) -> str:
    """One cell's state in words, with a bar and the time left while it runs."""
    if standing.state == "kept":
        return "done before"
    if standing.state == "done":
        return f"done in {standing.seconds:.0f} s"
    if standing.state == "failed":
        return f"failed: {standing.note}"
    if standing.state == "preempted":
        return "stopped; the same command goes on from its last checkpoint"
    if standing.state == "queued":
        return f"queued: {standing.note}"
    if standing.state in ("waiting", "held"):
        return f"waiting: {standing.note}" if standing.note else "waiting"
    if not standing.total:
        return standing.phase
    filled = round(10 * standing.done / standing.total)
    words = [f"{standing.phase} {'█' * filled}{'░' * (10 - filled)} {standing.done}/{standing.total}"]
    elapsed = time.monotonic() - standing.phase_started
    made = standing.done - standing.phase_first
    if made > 0 and standing.done < standing.total and elapsed > 1:
        words.append(f"{elapsed / made * (standing.total - standing.done):.0f} s left")
    return "  ".join([*words, standing.note] if standing.note else words)
