"""Finished cells → the table that compares them. Reads results and nothing else; torch-free.

A row is all cells that differ in nothing but the seed. Rows are compared item by item on the same items, with the seeds'
own spread pooled over the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babeltune import statistics
from babeltune.cells import Cell
from babeltune.config import dump
from babeltune.errors import EvalError, problem
from babeltune.options import RunConfig
from babeltune.records import Score
from babeltune.results import RunResult, read_evaluation, read_json, read_result, write_json
from babeltune.tables import Table, number, render

if TYPE_CHECKING:
    from babeltune.grid import Standing

NAMED = {"data": "name", "model": "name", "evaluation": "name", "decoding": "name", "template": "name", "scale": "name"}
"""Groups that a row is told apart by through one key."""
IGNORED = {"seed", "paths", "logger", "grid", "trainer", "evaluation", "scale"}
"""What no row is told apart by."""


@dataclass(frozen=True, slots=True)
class Row:
    """Cells that differ only in their seed."""

    label: str
    cells: tuple[Mapping[str, Any], ...]
    """As the manifest lists them."""
    scores: tuple[Mapping[str, Score], ...]
    """Of the finished ones."""
    results: tuple[RunResult, ...]


def write_manifest(configs: Sequence[RunConfig], cells: Sequence[Cell]) -> Path:
    """Note which cells make this grid, so that its table can be printed again. Returns the note's path."""
    grid = configs[0].grid
    wanted = [cell for cell in cells if any(cell.config is config for config in configs)]
    labels = row_labels([dump(cell.config) for cell in wanted])
    name = grid.name or "-".join(dict.fromkeys(config.data.name for config in configs))[:80]
    path = Path(configs[0].paths.outputs) / "grids" / f"{name}.json"
    write_json(
        path,
        {
            "name": name,
            "title": grid.title,
            "baseline": grid.baseline,
            "cells": [
                {"folder": cell.folder.name, "evaluation": cell.evaluation, "label": label, "seed": cell.config.seed}
                for cell, label in zip(wanted, labels, strict=True)
            ],
        },
    )
    return path


def row_labels(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A short name for each config: what it says differently from the others. Equal configs but for the seed are named alike.

    >>> row_labels([{"data": {"name": "a"}, "seed": 0}, {"data": {"name": "b"}, "seed": 0}])
    ['a', 'b']
    """
    flat = [_flat(config) for config in configs]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if len({json.dumps(one.get(key)) for one in flat}) > 1]
    if not keys:
        return [str(one.get("data", "run")) for one in flat]
    return ["  ".join(_says(key, one.get(key)) for key in keys if one.get(key) is not None) for one in flat]


def _says(key: str, value: Any) -> str:
    return str(value) if key in ("data", "model") else f"{key}={value}"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if not prefix and key in IGNORED:
            continue
        if not prefix and key in NAMED and isinstance(value, Mapping):
            found[key] = value.get(NAMED[key])
            inner = {name: part for name, part in value.items() if key == "data" and name not in ("name", "title", "sources", "take", "quota")}
            found |= _flat(inner, f"{key}.")
        elif isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def read_rows(manifest: Path) -> list[Row]:
    """The rows of a noted grid, from what is on disk now."""
    tree = read_json(manifest)
    outputs = manifest.parents[1]
    rows = []
    for label in dict.fromkeys(cell["label"] for cell in tree["cells"]):
        cells = tuple(cell for cell in tree["cells"] if cell["label"] == label)
        folders = list(dict.fromkeys((cell["folder"], cell["evaluation"]) for cell in cells))
        done = [(outputs / folder, read_evaluation(outputs / folder, evaluation)) for folder, evaluation in folders]
        results = [result for folder, scores in done if scores is not None and (result := read_result(folder)) is not None]
        rows.append(Row(label, cells, tuple(scores for _, scores in done if scores is not None), tuple(results)))
    return rows


def table(manifest: Path) -> Table:
    """The grid's table: a row per mix; score, difference to the baseline with its interval, n, seeds, losses.

    Raises EvalError when cells were measured in different ways.
    """
    tree = read_json(manifest)
    rows = read_rows(manifest)
    judged = [row for row in rows if row.scores and any(row.scores)]
    title = tree["title"] or tree["name"]
    if not judged:
        done = [[row.label, "trained, not judged" if row.results else "—"] for row in rows]
        return Table(title, ("mix", "state"), tuple(map(tuple, done)), ())
    main = next(iter(judged[0].scores[0]))
    _check_signatures(judged, main)
    baseline = next((row for row in judged if row.label == tree["baseline"]), judged[0])
    values = {row.label: matrix for row, matrix in zip(judged, statistics.aligned(*([run[main].items for run in row.scores] for row in judged)), strict=True)}
    seeds = statistics.pooled_seed_variance(list(values.values()))
    others = {row.label: statistics.paired_difference(values[row.label], values[baseline.label], seeds) for row in judged if row is not baseline}
    adjusted = dict(zip(others, statistics.holm([one.p_value for one in others.values() if one is not None]), strict=False))
    extra = [name for name in judged[0].scores[0] if name != main and ("/loss" in name or name.startswith(main)) and "_" in name.removeprefix(main)]
    body = []
    for row in rows:
        if row.label not in values:
            body.append((row.label, "—", "", "", "", "0", str(len(row.scores)), *("" for _ in extra)))
            continue
        own = values[row.label]
        mean = statistics.mean_interval(own, seeds)
        difference = others.get(row.label)
        body.append(
            (
                row.label,
                number(None if mean is None else mean.value),
                "baseline" if row is baseline else number(difference and difference.interval.value, sign=True),
                "" if difference is None else f"{number(difference.interval.low, sign=True)} … {number(difference.interval.high, sign=True)}",
                "" if difference is None else verdict(difference, adjusted[row.label]),
                str(own.shape[1]),
                str(len(row.scores)),
                *(number(_mean([run[name].value for run in row.scores if name in run])) for name in extra),
            )
        )
    columns = ("mix", main.split("/")[-1], "Δ", "95 % CI of Δ", "so", "n", "seeds", *(name.split("/")[-1] for name in extra))
    return Table(title, columns, tuple(body), tuple(_notes(judged, main, baseline, seeds)))


def verdict(difference: statistics.Difference, p_value: float) -> str:
    """What may be said of a difference once the table's other comparisons are allowed for (Holm)."""
    if p_value >= 0.05:
        return "not told apart"
    return "better" if difference.interval.value > 0 else "worse"


def summary(manifest: Path, standings: Sequence[Standing]) -> str:
    """What a grid prints when it ends: the table, and how to print it again."""
    folders = [standing.cell.folder for standing in standings if standing.state in ("done", "kept")]
    where = f"folders: {folders[-1].parent}/" if len(folders) != 1 else f"folder: {folders[0]}"
    if not folders:
        return "no cell has finished"
    outputs = manifest.parents[1]
    again = f"again: babeltune table {manifest.stem}" + ("" if str(outputs) == "outputs" else f" --outputs {outputs}")
    return f"{render(table(manifest), 'text')}\n{where}   {again}"


def _check_signatures(rows: Sequence[Row], name: str) -> None:
    found = {run[name].signature for row in rows for run in row.scores if name in run}
    if len(found) != 1 or any(name not in run for row in rows for run in row.scores):
        raise EvalError(
            problem("table", f"cells measured in {max(2, len(found))} different ways", "one suite and one metric for all rows", "evaluation=NAME for the whole grid")
        )


def _notes(rows: Sequence[Row], main: str, baseline: Row, seeds: statistics.SeedVariance | None) -> list[str]:
    score = rows[0].scores[0][main]
    notes = [f"{main}: {score.signature}"]
    unscored = sum(run[main].unscored for row in rows for run in row.scores)
    if unscored:
        notes.append(f"{unscored} items could not be scored and are in no mean")
    floor = statistics.noise_floor(seeds, min(len(row.scores) for row in rows))
    if floor is not None:
        notes.append(f"seeds alone move a difference by up to {floor:.1f} (95 %)")
    else:
        notes.append("one seed each: intervals cover the choice of items, not that of seeds; add seed=0,1,2")
    labels = dict.fromkeys(label for row in rows for result in row.results for label in result.labels)
    return notes + [f"read with care: {label}" for label in labels]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
