"""A paper's printed averages, sums and products, computed again from its own cells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from babeltune.papers.spec import Check, Row, Spec
from babeltune.tables import number


@dataclass(frozen=True, slots=True)
class Recomputed:
    """One printed figure and what the cells it is made of give."""

    row: int
    column: str
    printed: float
    value: float
    within: float

    @property
    def agrees(self) -> bool:
        return abs(self.printed - self.value) <= self.within + 1e-9


def recompute(spec: Spec) -> list[Recomputed]:
    """Every check of a table, for each row or column that has all figures it takes."""
    return [found for check in spec.checks for found in _check(spec, check)]


def footnote(spec: Spec, found: Recomputed) -> str:
    """What to say of a figure that its own cells do not give."""
    digits = spec.columns[spec.column(found.column)].digits
    more = digits + 1 if abs(found.printed - found.value) < 10 * 10.0**-digits else digits
    return f"printed {number(found.printed, digits=digits)}; its own cells give {number(found.value, digits=more)}"


def summary(spec: Spec) -> str:
    """How many printed figures agree; empty where none can be computed again."""
    found = recompute(spec)
    if not found:
        return ""
    columns = ", ".join(dict.fromkeys(one.column for one in found))
    agree = sum(one.agrees for one in found)
    return f"computed again from the paper's own cells: {agree} of {len(found)} figures agree ({columns})"


def _check(spec: Spec, check: Check) -> Iterator[Recomputed]:
    if check.kind.startswith("row"):
        for place, row in enumerate(spec.rows):
            value = _of_row(spec, check, row)
            printed = _value(spec, row, check.gives)
            if value is not None and printed is not None:
                yield Recomputed(place, check.gives, printed, value, check.within)
        return
    for place, row in enumerate(spec.rows):
        if check.total not in row.words:
            continue
        before = [one for one in spec.rows[:place] if check.total not in one.words]
        parts = [one for one in before if spec.group_of(one) == spec.group_of(row)]
        for name in check.of:
            weights = [_value(spec, one, check.weights) if check.weights else 1.0 for one in parts]
            values = [_value(spec, one, name) for one in parts]
            printed = _value(spec, row, name)
            if printed is None or None in values or None in weights:
                continue
            pairs = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None and weight]
            total = sum(value * weight for value, weight in pairs)
            divisor = sum(weight for _, weight in pairs) if check.kind == "column_mean" else 1.0
            yield Recomputed(place, name, printed, total / divisor, check.within)


def _of_row(spec: Spec, check: Check, row: Row) -> float | None:
    if check.kind == "row_count":
        return float(len(row.words[spec.words.index(check.of[0])].split(", ")))
    values = [_value(spec, row, name) for name in check.of]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return check.times * (math.prod(known) if check.kind == "row_product" else math.fsum(known) / len(known))


def _value(spec: Spec, row: Row, name: str) -> float | None:
    found = row.reported[spec.column(name)]
    return float(found) if isinstance(found, int | float) else None


def marks(spec: Spec) -> Sequence[tuple[int, int, str]]:
    """Every footnote of a table, by row, then column: what its file says, then what does not agree."""
    found: list[tuple[int, int, str]] = []
    for place, row in enumerate(spec.rows):
        found += [(place, _place(spec, name), note) for name, note in row.marks.items()]
    found += [(one.row, spec.column(one.column), footnote(spec, one)) for one in recompute(spec) if not one.agrees]
    return sorted(found, key=lambda one: one[:2])


def _place(spec: Spec, name: str) -> int:
    """A column's place; a text column's counts backwards from -1."""
    return spec.words.index(name) - len(spec.words) if name in spec.words else spec.column(name)
