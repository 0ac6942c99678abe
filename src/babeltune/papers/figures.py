"""Every figure of a paper's table, with what of ours stands beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from babeltune import statistics
from babeltune.papers import finding
from babeltune.papers.finding import Finished, Ours, Several
from babeltune.papers.spec import Column, Row, Spec
from babeltune.results import RunResult

MISSING = "–"
"""Where a figure of ours could stand and there is none yet."""


@dataclass(frozen=True, slots=True)
class Figure:
    reported: float | str | None
    where: Mapping[str, Any]
    """The cell that reproduces it; empty where there is none."""
    score: str
    """The score that stands beside it, for a column of scores."""
    ours: Ours | Several | float | str | None
    """A score, or a plain figure in its own unit, or words."""
    results: tuple[RunResult, ...] = ()
    """The cells that `ours` comes from."""

    @property
    def is_missing(self) -> bool:
        return bool(self.where) and self.ours is None


def interval(ours: Ours, times: float = 1.0) -> statistics.Interval | None:
    """The mean over seeds and items with its 95 % interval; None where no items explain the score."""
    if ours.items is None:
        return None
    (values,) = statistics.aligned(ours.items)
    return statistics.mean_interval(values * times)


class Sheet:
    """A table's figures by row and column, looked up once."""

    def __init__(self, spec: Spec, finished: Finished) -> None:
        self.spec = spec
        self.finished = finished
        scored = [column.name for column in spec.columns if column.kind == "score"]
        self.main = spec.main or tuple(scored[-1:])
        """The columns that get an interval."""
        self.figures = {
            (i, j): self._figure(row, column) for i, row in enumerate(spec.rows) for j, column in enumerate(spec.columns)
        }
        self.figures |= {
            (i, j): self._mean(i, column) for i in range(len(spec.rows)) for j, column in enumerate(spec.columns) if column.mean_of
        }
        self.others: list[dict[str, Ours]] = [self._others(place) for place in range(len(spec.rows))]
        """For each row with nothing in its main columns, what else its cells were judged by."""
        self.beside = {column.name: self._beside(column) for column in spec.columns if column.cell}
        """The same for each column that is a model."""

    def other_names(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.others for name in row))

    def _figure(self, row: Row, column: Column) -> Figure:
        place = self.spec.columns.index(column)
        reported = row.reported[place]
        where = self.spec.where(row, column)
        if column.kind == "mean_of":
            return Figure(reported, {}, "", None)
        if column.kind == "config":
            return Figure(reported, {}, "", self._configured(row))
        if not where:
            return Figure(reported, {}, "", None)
        match column.kind:
            case "score":
                name = row.score if column.score == "row" else column.score
                ours = self.finished.score(where, self.spec.same, name, column.signature, self._classes(column)) if name else None
                results = tuple(ours.results) if isinstance(ours, Ours) else ()
                return Figure(reported, where if name else {}, name, ours, results)
            case "ledger":
                found = self.finished.ledger(where, row.source) if row.source else None
                value = None if found is None or math.isnan(found[1][column.ledger]) else found[1][column.ledger]
                return Figure(reported, where, "", value, () if found is None else (found[0],))
            case _:
                return self._of_training(reported, where, column)

    def _of_training(self, reported: float | str | None, where: Mapping[str, Any], column: Column) -> Figure:
        results = self.finished.trained(where, self.spec.same)
        values = [finding.at(result.training, column.training) for result in results]
        known = [float(value) for value in values if isinstance(value, int | float)]
        return Figure(reported, where, "", math.fsum(known) / len(known) if known else None, tuple(results) if known else ())

    def _configured(self, row: Row) -> str | None:
        if not row.key:
            return None
        experiment = row.experiment or self.spec.experiment
        value = finding.at(self.finished.recipes.of({"experiment": experiment, **row.cell}, "paper"), row.key)
        return f"{value:g}" if isinstance(value, float) else str(value)

    def _mean(self, place: int, column: Column) -> Figure:
        reported = self.figures[place, self.spec.column(column.name)].reported
        parts = [self.figures[place, self.spec.column(name)] for name in column.mean_of]
        values = [part.ours.value for part in parts if isinstance(part.ours, Ours) and part.ours.value is not None]
        return Figure(reported, {}, "", math.fsum(values) / len(values) if len(values) == len(parts) else None)

    def _classes(self, column: Column) -> list[str]:
        scores = {one.name: one.score for one in self.spec.columns}
        return [scores.get(name, name) for name in column.macro_of]

    def _others(self, place: int) -> dict[str, Ours]:
        row = self.spec.rows[place]
        main = [self.figures[place, self.spec.column(name)] for name in self.main]
        if not (row.cell or row.experiment) or any(one.ours is not None for one in main):
            return {}
        return {one.name: one for figure in main[:1] if figure.where for one in self._other(figure.where)}

    def _beside(self, column: Column) -> list[Ours]:
        figures = [self.figures[place, self.spec.column(column.name)] for place in range(len(self.spec.rows))]
        asked = [figure.where for figure in figures if figure.where]
        return self._other(asked[0]) if asked and all(figure.ours is None for figure in figures) else []

    def _other(self, where: Mapping[str, Any]) -> list[Ours]:
        names = [*(column.score for column in self.spec.columns), *(row.score for row in self.spec.rows)]
        return self.finished.other(where, self.spec.same, {name.split("/")[0] for name in names})
