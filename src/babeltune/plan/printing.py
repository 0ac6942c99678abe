"""A plan's lines as tables: what each cell takes, what its memory is made of, and what all that is missing takes. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from babeltune.options import Accelerator
from babeltune.plan.asking import Line
from babeltune.plan.units import in_bytes, in_seconds
from babeltune.planned import PARTS
from babeltune.tables import Table, render

UNKNOWN = "?"
NOTHING = "—"
COLUMNS = (
    "cell",
    "state",
    "trained of",
    "parameters",
    "steps",
    "tokens",
    "to learn",
    "memory",
    "training",
    "judging",
    "disk",
    "asks",
)


def text(lines: Sequence[Line]) -> str:
    """Everything that a plan prints."""
    tables = [Table("What this would take", COLUMNS, tuple(map(_row, lines)), tuple(_notes(lines)), num_words=2)]
    parts = _parts(lines)
    if parts:
        tables.append(Table("Memory at its peak, by part", ("cell", *PARTS, "in all", "free"), tuple(parts)))
    warned = [f"warning: {line.name} {warning}" for line in lines for warning in line.facts.warnings]
    warned += _too_many(lines)
    return "\n\n".join([*map(render, tables), *(["\n".join(warned)] if warned else []), "\n".join(totals(lines))])


def _row(line: Line) -> tuple[str, ...]:
    facts, actual = line.facts, line.actual
    if actual:
        return _done_row(line)
    return (
        line.name,
        line.state,
        _number(facts.trainable, NOTHING if facts.steps == 0 else UNKNOWN),
        _number(facts.total, NOTHING if facts.steps == 0 else UNKNOWN),
        _number(facts.steps),
        _number(facts.tokens),
        _number(facts.target_tokens),
        UNKNOWN if facts.peak_bytes is None and facts.steps != 0 else _size(facts.peak_bytes),
        NOTHING if facts.steps == 0 else _time(facts.seconds),
        NOTHING if not facts.items else _time(facts.evaluation, "≤ "),
        _size(sum(facts.disk.values()) or None),
        f"{facts.requests:,}" if facts.requests else NOTHING,
    )


def _done_row(line: Line) -> tuple[str, ...]:
    """A trained cell: what was planned, where it was, and what training really took."""
    actual, facts = line.actual, line.facts
    planned = actual.get("plan") or {}
    counts = actual.get("parameters") or {}
    peak, seconds = actual.get("peak_bytes"), actual.get("seconds")
    return (
        line.name,
        line.state,
        _number(counts.get("trainable"), NOTHING),
        _number(counts.get("total"), NOTHING),
        _both(planned.get("steps"), actual.get("steps"), lambda value: f"{value:,.0f}"),
        _both(planned.get("tokens"), actual.get("tokens"), lambda value: f"{value:,.0f}"),
        NOTHING,
        _both(planned.get("peak_bytes"), peak, in_bytes),
        _both(planned.get("seconds"), seconds, in_seconds),
        NOTHING if line.is_done else _time(facts.evaluation, "≤ "),
        NOTHING,
        f"{facts.requests:,}" if facts.requests else NOTHING,
    )


def _both(planned: float | None, actual: float | None, say: Callable[[float], str]) -> str:
    """Planned | actual; one where they say the same."""
    words = [say(value) for value in (planned, actual) if value is not None]
    return " | ".join(dict.fromkeys(words)) or NOTHING


def _parts(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    """A row for each make-up of memory, named by the first cell that has it."""
    groups: dict[tuple[int, ...], list[Line]] = {}
    for line in lines:
        if line.facts.memory:
            groups.setdefault(tuple(line.facts.memory[name] for name in PARTS), []).append(line)
    rows = []
    for sizes, alike in groups.items():
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        free = alike[0].facts.free
        cells = [in_bytes(size) if size else NOTHING for size in sizes]
        rows.append((alike[0].name + more, *cells, in_bytes(sum(sizes)), UNKNOWN if free is None else in_bytes(free)))
    return rows


def _notes(lines: Sequence[Line]) -> Iterator[str]:
    """How the figures were found, once each; and what keeps a cell from being known or run."""
    ways: dict[str, list[str]] = {}
    for line in lines:
        if line.facts.how not in ("", "measured"):
            ways.setdefault(line.facts.how, []).append(line.name)
    for how, names in ways.items():
        bound = "; memory by formula, no time" if how.startswith("not calibrated") else ""
        yield f"{how}{bound}: {', '.join(names)}"
    for line in lines:
        for words in (*line.missing, *line.facts.notes):
            yield f"{line.name}: {words}"
    if any(line.actual.get("plan") for line in lines):
        yield "of trained cells: planned | actual"


def totals(lines: Sequence[Line]) -> Iterator[str]:
    """What all cells take that are not done: work, the time it takes side by side, disk, questions to a judge."""
    left = [line for line in lines if not line.is_done]
    states = [f"{len(lines) - len(left)} done"] if len(left) < len(lines) else []
    yield ", ".join([f"{len(left)} of {len(lines)} {'cell' if len(lines) == 1 else 'cells'} to run", *states])
    if not left:
        return
    width = _width(left)
    unknown = sum(_seconds(line) is None for line in left)
    if wall := _wall(left, width):
        side = f", {width} at a time" if len(left) > 1 else ""
        lacking = f"; {unknown} more of unknown time" if unknown else ""
        yield f"time: at most {in_seconds(wall)}{side}{lacking}"
    disk = [line.facts.disk for line in left if line.facts.disk]
    if disk:
        stays, passing = sum(one["kept"] for one in disk), max(one["passing"] for one in disk) * width
        yield f"disk: {in_bytes(stays)} stay, checkpoints take {in_bytes(passing)} while cells run"
    if requests := sum(line.facts.requests for line in left):
        yield f"judge: {requests:,} requests at most"


def _wall(left: Sequence[Line], width: int) -> float:
    """Seconds from the first process's start to the last cell's end: each cell goes to the worker that is free first, and waits
    for the cell that it stands on. Cells of unknown time take none."""
    free = [0.0] * width
    ends: dict[Path, float] = {}
    for line in left:
        parent = line.cell.parent if line.cell is not None else None
        worker = free.index(min(free))
        begins = max(free[worker], ends.get(parent, 0.0) if parent is not None else 0.0)
        free[worker] = begins + (_seconds(line) or 0.0)
        if line.cell is not None:
            ends[line.cell.folder] = free[worker]
    return max(free) and max(free) + max(line.facts.starting or 0.0 for line in left)


def _seconds(line: Line) -> float | None:
    """Of a cell from its base to its scores; the base is read once to train and once to judge."""
    facts = line.facts
    if line.cell is None or (facts.seconds is None and facts.steps != 0 and not line.actual):
        return None
    left = 1 - line.steps_done / facts.steps if facts.steps else 1.0
    return left * (facts.seconds or 0.0) + (facts.evaluation or 0.0) + 2 * (facts.loading or 0.0)


def _too_many(lines: Sequence[Line]) -> Iterator[str]:
    """A warning where cells fit one by one, and not side by side."""
    fitting = [line for line in lines if not line.is_done and not line.facts.warnings]
    if not fitting or fitting[0].config.trainer.accelerator is not Accelerator.cpu:
        return
    width, free = _width(fitting), fitting[0].facts.free
    largest = sorted((line.facts.peak_bytes or 0 for line in fitting), reverse=True)[:width]
    if len(largest) > 1 and free is not None and sum(largest) > free:
        need = f"{len(largest)} cells at a time need {in_bytes(sum(largest))}"
        yield f"warning: {need} where this machine has {in_bytes(free)} free; try grid.workers=1"


def _width(lines: Sequence[Line]) -> int:
    """Cells that run at a time: see `GridConfig.workers`. A cell that others stand on was not asked for by itself."""
    asked = next((line.config.grid.workers for line in lines if line.config.grid.workers is not None), None)
    if asked is not None:
        return min(asked, len(lines))
    alone = any(line.config.trainer.accelerator is Accelerator.gpu or line.config.trainer.devices > 1 for line in lines)
    return 1 if alone else min(2, os.cpu_count() or 1, len(lines))


def _number(value: float | None, none: str = UNKNOWN) -> str:
    return none if value is None else f"{value:,}"


def _size(value: float | None) -> str:
    return NOTHING if value is None else in_bytes(value)


def _time(value: float | None, sign: str = "") -> str:
    return UNKNOWN if value is None else sign + in_seconds(value)
