"""A paper's table and what was found of ours → one `Table`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from babeltune.papers import notes, recomputing
from babeltune.papers.figures import MISSING, Figure, Sheet, interval
from babeltune.papers.finding import Finished, Ours, Several
from babeltune.papers.spec import Column, Spec
from babeltune.results import RunResult
from babeltune.tables import Link, Place, Table, number


@dataclass
class _Body:
    """What is filled in from left to right."""

    columns: list[str] = field(default_factory=list)
    spans: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    links: dict[Place, tuple[Link, ...]] = field(default_factory=dict)

    def add(self, name: str, cells: Sequence[str], over: str = "") -> None:
        self.columns.append(name)
        self.spans.append(over)
        for row, cell in zip(self.rows, cells, strict=True):
            row.append(cell)


def table(spec: Spec, about: str, finished: Finished, near: Path) -> Table:
    """`about` is what the table's file says of itself; links lead from the folder `near`."""
    sheet = Sheet(spec, finished)
    body = _Body(rows=[[] for _ in spec.rows])
    for place, heading in enumerate(spec.words):
        body.add(heading, [row.words[place] for row in spec.rows])
    first: list[int] = []
    for place, column in enumerate(spec.columns):
        first.append(len(body.columns))
        _block(body, sheet, place, column, near)
    for name in sheet.other_names():
        body.add(f"{name} (another measure)", [_other(sheet.others[place].get(name)) for place in range(len(spec.rows))])
    marks: dict[Place, str] = {}
    said: list[str] = []
    for row, place, note in recomputing.marks(spec):
        if note not in said:
            said.append(note)
        at = (row, len(spec.words) + place if place < 0 else first[place])
        marks[at] = ",".join(filter(None, (marks.get(at), str(said.index(note) + 1))))
    return Table(
        title=spec.title,
        columns=tuple(body.columns),
        rows=tuple(map(tuple, body.rows)),
        notes=tuple(notes.notes(sheet, about, said)),
        num_words=len(spec.words),
        spans=tuple(body.spans) if any(body.spans) else (),
        marks=marks,
        links=body.links,
    )


def _block(body: _Body, sheet: Sheet, place: int, column: Column, near: Path) -> None:
    """A column of the paper with what of ours stands beside it."""
    spec = sheet.spec
    figures = [sheet.figures[row, place] for row in range(len(spec.rows))]
    reported = [_said(figure.reported, column.digits) for figure in figures]
    if not any(one.kind for one in spec.columns):
        body.add(column.name, reported)
        return
    over = column.name if len(spec.columns) > 1 else ""
    body.add("paper", reported, over)
    if not column.kind:
        return
    for row, figure in enumerate(figures):
        if links := _links(figure, sheet, near):
            body.links[row, len(body.columns)] = links
    body.add("ours", [_ours(figure, column) for figure in figures], over)
    found = [figure.ours if isinstance(figure.ours, Ours) else None for figure in figures]
    if column.kind == "score" and column.name not in sheet.main:
        halves = [_half(one, column) for one in found]
        if any(halves):
            body.add("±", halves, over)
        return
    if column.kind == "config":
        return
    body.add("difference", [_difference(figure, column) for figure in figures], over)
    if column.kind == "score":
        body.add("95 % CI", [_interval(one, column.times, column.digits) for one in found], over)
        body.add("n", ["" if one is None else f"{one.score.n:,}" for one in found], over)
        body.add("seeds", ["" if one is None else str(len(one.judged)) for one in found], over)


def _said(value: float | str | None, digits: int) -> str:
    return "" if value is None else value if isinstance(value, str) else number(value, digits=digits)


def _ours(figure: Figure, column: Column) -> str:
    match figure.ours:
        case Several(ways):
            return f"{len(ways)} ways"
        case Ours(value=value):
            return MISSING if value is None else number(value * column.times, digits=column.digits)
        case str(words):
            return words
        case float(value):
            return number(value * column.times, digits=column.digits)
        case _:
            return MISSING if figure.is_missing else ""


def _difference(figure: Figure, column: Column) -> str:
    value = figure.ours.value if isinstance(figure.ours, Ours) else figure.ours
    if not isinstance(value, float) or not isinstance(figure.reported, int | float):
        return ""
    return number(value * column.times - figure.reported, sign=True, digits=column.digits)


def _half(ours: Ours | None, column: Column) -> str:
    """Half the width of the 95 % interval."""
    found = None if ours is None else interval(ours, column.times)
    return "" if found is None else number((found.high - found.low) / 2, digits=column.digits)


def _interval(ours: Ours | None, times: float, digits: int) -> str:
    found = None if ours is None else interval(ours, times)
    return "" if found is None else f"{number(found.low, digits=digits)} … {number(found.high, digits=digits)}"


def _other(ours: Ours | None) -> str:
    return "" if ours is None else notes.spelled_out(ours)


def _links(figure: Figure, sheet: Sheet, near: Path) -> tuple[Link, ...]:
    """The folder of each cell that a figure is made of, and its run on W&B where it has one online."""
    links: list[Link] = []
    for place, result in enumerate(figure.results):
        links.append(Link(f"seed {result.config['seed']}" if place else "", _path(result, sheet.finished.outputs, near)))
        if url := result.tracking.get("url"):
            links.append(Link("W&B", str(url)))
    return tuple(links)


def _path(result: RunResult, outputs: Path, near: Path) -> str:
    return os.path.relpath(outputs / result.cell, near)
