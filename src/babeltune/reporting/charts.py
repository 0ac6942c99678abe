"""The charts of a set of cells: what `babeltune figure` draws, and the report shows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from babeltune import comparison, statistics
from babeltune.errors import EvalError, problem
from babeltune.evaluation.metrics import METRICS
from babeltune.figures import Chart, Compared, Counts, Curves, Estimate, Line, Spreads
from babeltune.papers import spec
from babeltune.reporting import gathering, logged
from babeltune.reporting.gathering import Gathered, Shown
from babeltune.results import find_results, read_json

ALL = "all items"
PRETRAINED = "cookbook-figure3"
"""The paper's table that says how much text published models were pretrained on."""


def by_category(cells: Gathered) -> Chart | None:
    return _compared(cells, "category", "Score by category")


def by_language(cells: Gathered) -> Chart | None:
    return _compared(cells, "language", "Score by language")


def ablation(cells: Gathered) -> Chart | None:
    """Bars of every row: over all items, then in each category."""
    if cells.main is None:
        return None
    kinds = _kinds(cells, "category")
    groups = [ALL, *dict.fromkeys(kinds.values())] if len(set(kinds.values())) > 1 else [ALL]
    rows = _estimates(cells, kinds, groups)
    return Compared("Ablation", _unit(cells), tuple(groups), tuple(row.label for row in cells.judged), rows, mark="bar")


def losses(cells: Gathered) -> Chart | None:
    """The loss of every cell over its steps; seeds of a row share a colour."""
    curves = {cell.folder: logged.losses(cell) for cell in cells.cells}
    points = max(20, min(150, 12_000 // max(1, len(curves))))
    lines = [
        _line(cell.label, found[logged.WHOLE], points) for cell in cells.cells if logged.WHOLE in (found := curves[cell.folder])
    ]
    order = tuple(row.label for row in cells.judged)
    return Curves("Training loss", "step", "nats per target token", tuple(lines), order=order) if lines else None


def by_source(cell: Shown) -> Chart | None:
    """The loss of each source of one cell; None where there are not two."""
    found = {name: curve for name, curve in logged.losses(cell).items() if name != logged.WHOLE}
    if len(found) < 2:
        return None
    points = max(20, min(100, 1_000 // len(found)))
    lines = tuple(_line(name, curve, points) for name, curve in found.items())
    return Curves(f"{cell.label}: loss by source", "step", "nats per target token", lines)


def vocabulary(cells: Gathered) -> Chart | None:
    """The score of every row whose base's pretraining is known, over how much text that was; None where that is not two rows."""
    known = [
        (amount, row)
        for row in cells.judged
        if (cell := cells.first(row.label)) is not None and cell.result is not None and (amount := _amount(cell))
    ]
    if len(known) < 2:
        return None
    known.sort(key=lambda pair: _number(pair[0]))
    estimates = {row.label: found for row, (found,) in zip(cells.judged, _estimates(cells, {}, [ALL]), strict=True)}
    there = [(amount, found) for amount, row in known if (found := estimates[row.label]) is not None]
    ticks = tuple(dict.fromkeys(amount for amount, _ in there))
    places = tuple(float(ticks.index(amount)) for amount, _ in there)
    line = Line(cells.main or "", places, tuple(found for _, found in there))
    return Curves(
        "Score and pretraining", "tokens that the base was pretrained on with its new pieces", _unit(cells), (line,), ticks
    )


def categories(cells: Gathered) -> Chart | None:
    """How many questions of each category the suite has."""
    counts: dict[str, int] = {}
    for item in _asked(cells):
        counts[item["category"]] = counts.get(item["category"], 0) + 1
    return Counts("Questions by category", "questions", tuple(counts), tuple(counts.values())) if counts else None


def lengths(cells: Gathered) -> Chart | None:
    """How long the suite's questions and references are, in characters."""
    asked = _asked(cells)
    groups = tuple(dict.fromkeys(item["category"] for item in asked))
    if not groups:
        return None
    measures: dict[str, Callable[[Mapping[str, Any]], int]] = {
        "question": lambda item: len(item["messages"][-1]["text"]) + len(item["messages"][-1]["input"]),
        "reference": lambda item: len(item["reference"]),
    }
    values = tuple(
        tuple(tuple(float(long) for item in asked if item["category"] == group and (long := measure(item))) for group in groups)
        for measure in measures.values()
    )
    return Spreads("Lengths by category", "characters (box: middle half; diamond: mean)", groups, tuple(measures), values)


CHARTS: dict[str, tuple[Callable[[Gathered], Chart | None], str]] = {
    "scores": (by_category, "judged cells of a suite with two categories"),
    "languages": (by_language, "judged cells of a suite with two languages"),
    "losses": (losses, "cells that trained"),
    "ablation": (ablation, "judged cells"),
    "vocabulary": (vocabulary, "judged cells of two bases whose pretraining is known"),
    "categories": (categories, "a judged cell"),
    "lengths": (lengths, "a judged cell"),
}
"""By the name that `babeltune figure` knows, with what each needs."""


def chart(name: str, cells: Gathered) -> Chart:
    """The chart of this name. Raises EvalError when these cells do not make one."""
    make, needs = CHARTS[name]
    found = make(cells)
    if found is None:
        hint = f"another figure ({', '.join(other for other in CHARTS if other != name)})"
        raise EvalError(problem(f"figure {name}", f"nothing to draw from {', '.join(cells.asked)}", needs, hint))
    return found


def _asked(cells: Gathered) -> list[dict[str, Any]]:
    return next((found for cell in cells.firsts if (found := gathering.items(cell))), [])


def _kinds(cells: Gathered, key: str) -> dict[str, str]:
    return {item["id"]: item[key] for item in _asked(cells)}


def _unit(cells: Gathered) -> str:
    assert cells.main is not None
    better = next(iter(cells.judged[0].scores))[cells.main].higher_is_better
    return f"{cells.main}, 95 % intervals" + ("" if better else "; lower is better")


def _compared(cells: Gathered, key: str, title: str) -> Chart | None:
    if cells.main is None:
        return None
    kinds = _kinds(cells, key)
    groups = list(dict.fromkeys(kinds.values()))
    if len(groups) < 2:
        return None
    rows = _estimates(cells, kinds, groups)
    return Compared(title, _unit(cells), tuple(groups), tuple(row.label for row in cells.judged), rows)


def _estimates(cells: Gathered, kinds: Mapping[str, str], groups: Sequence[str]) -> tuple[tuple[Estimate | None, ...], ...]:
    """The mean of each row's items in each group, over the items that all rows have, as the table has it over all of them.

    Raises EvalError when rows were measured in different ways.
    """
    assert cells.main is not None
    comparison.check_signatures(cells.judged, cells.main)
    columns = [list(_means(cells, kinds, None if group == ALL else group)) for group in groups]
    return tuple(zip(*columns, strict=True)) if columns else ()


def _means(cells: Gathered, kinds: Mapping[str, str], group: str | None) -> Iterator[Estimate | None]:
    name = cells.main or ""
    matrices = statistics.aligned(
        *(
            [
                {item: value for item, value in run[name].items.items() if group is None or kinds.get(item) == group}
                for run in row.scores
            ]
            for row in cells.judged
        )
    )
    seeds = statistics.pooled_seed_variance(matrices)
    least, most = (0.0, 100.0) if name.partition("/")[2] in METRICS else (-math.inf, math.inf)
    for matrix in matrices:
        found = statistics.mean_interval(matrix, seeds)
        yield None if found is None else Estimate(found.value, max(found.low, least), min(found.high, most))


def _line(label: str, curve: logged.Curve, points: int) -> Line:
    thin = logged.thinned(curve, points)
    return Line(label, tuple(step for step, _ in thin), tuple(Estimate(loss, loss, loss) for _, loss in thin))


def _amount(cell: Shown) -> str:
    """How much text a row's base was pretrained on with its new pieces, as `20B`: by the paper's table, or by the cells that it
    comes from. Empty where that is not known."""
    assert cell.result is not None
    model = cell.result.config["model"]["name"]
    for row in spec.read(spec.files()[PRETRAINED])[0].rows:
        if row.cell.get("model") == model:
            return str(row.words[-1])
    stages = list(_bases(cell))
    if not any(kind in ("extend_vocabulary", "pretrain") for kind, _ in stages):
        return ""
    return _amount_of(sum(tokens for kind, tokens in stages if kind == "pretrain"))


def _bases(cell: Shown) -> Iterator[tuple[str, int]]:
    """Stage and tokens of each cell that a cell stands on, as far as they are in the same folder."""
    known = {result.identity: result for result in find_results(cell.folder.parent)}
    folder = cell.folder
    while (path := folder / "identity.json").is_file():
        parent = known.get(read_json(path)["parts"].get("base", ""))
        if parent is None:
            return
        yield parent.config["stage"]["kind"], parent.training.get("tokens", 0)
        folder = cell.folder.parent / parent.cell


def _amount_of(tokens: int) -> str:
    """
    >>> _amount_of(0), _amount_of(3_400_000_000), _amount_of(950)
    ('0', '3.4B', '950')
    """
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if tokens >= size:
            return f"{tokens / size:.1f}".removesuffix(".0") + letter
    return str(tokens)


def _number(amount: str) -> float:
    """
    >>> _number("20B")
    20000000000.0
    """
    found = re.fullmatch(r"([\d.]+)([KMB]?)", amount)
    assert found, f"{PRETRAINED} has an amount of {amount!r}"
    return float(found[1]) * {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9}[found[2]]
