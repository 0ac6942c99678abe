"""Finished cells → the table that compares them. Reads results and nothing else; torch-free.

A row is all cells that differ in nothing but the seed. Rows are compared item by item on the same items, with the seeds'
own spread pooled over the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babeltune import planning, statistics
from babeltune.cells import cell_of
from babeltune.config import dump
from babeltune.errors import BabelTuneError, ConfigError, EvalError, nearest, problem
from babeltune.identity import digest
from babeltune.options import RunConfig
from babeltune.records import Score
from babeltune.results import RunResult, read_evaluation, read_json, read_result, write_json
from babeltune.tables import Table, number, render

if TYPE_CHECKING:
    from babeltune.progress import Standing

NAMED = {
    "data": "name",
    "model": "name",
    "decoding": "name",
    "template": "name",
    "adapter": "kind",
    "precision": "kind",
    "stage": "kind",
    "judge": "kind",
}
"""Groups of which one key tells the option. What follows from it is not said again."""
IGNORED = {"seed", "paths", "logger", "grid", "trainer", "evaluation", "scale", "plan"}
"""What no row is told apart by: a grid is judged in one way, and the rest changes no number, or is noted below the table."""
ASKED_AS_IT_IS = "{question}"
"""The `evaluation.prompt` that changes nothing."""
LOSS_DIGITS = 3
"""Decimals of what is better when lower: losses differ in the third."""


@dataclass(frozen=True, slots=True)
class Row:
    """Cells that differ only in their seed."""

    label: str
    cells: tuple[Mapping[str, Any], ...]
    """As the manifest lists them."""
    scores: tuple[Mapping[str, Score], ...]
    """Of the finished ones."""
    results: tuple[RunResult, ...]


def check(configs: Sequence[RunConfig]) -> Iterator[str]:
    """What keeps these configs from making one table, each as a sentence, before any of them runs."""
    suites = {
        json.dumps(dump(config.evaluation) | {"prompt": ASKED_AS_IT_IS}, sort_keys=True): config.evaluation.name
        for config in configs
    }
    if len(suites) > 1:
        names = list(dict.fromkeys(suites.values()))
        got = ", ".join(names) if len(names) > 1 else f"{len(suites)} forms of {names[0]}"
        yield problem("evaluation", f"{got} in one grid", "one suite for all cells", f"evaluation={names[0]} for the whole grid")
    if len({config.plan for config in configs}) > 1:
        yield problem("plan", "true for some cells and false for others", "one word for the whole grid", "plan=true")
    outputs = list(dict.fromkeys(config.paths.outputs for config in configs))
    if len(outputs) > 1:
        yield problem("paths.outputs", ", ".join(outputs), "one folder for the whole grid", f"paths.outputs={outputs[0]}")
    baseline = configs[0].grid.baseline
    labels = list(dict.fromkeys(row_labels([dump(config) for config in configs])))
    if baseline is not None and baseline not in labels:
        yield problem("grid.baseline", repr(baseline), f"a row of the table ({', '.join(labels)})", nearest(baseline, labels, 1))


def write_manifest(configs: Sequence[RunConfig]) -> Path:
    """Note which cells make this grid, so that its table can be printed again. Returns the note's path.

    The configs are `named`. Raises OutputError when results cannot be written.
    """
    grid = configs[0].grid
    labels = row_labels([dump(config) for config in configs])
    noted: dict[tuple[Path, str], dict[str, Any]] = {}
    for config, label in zip(configs, labels, strict=True):
        cell = cell_of(config)
        entry = {"folder": cell.folder.name, "evaluation": cell.evaluation, "label": label, "seed": config.seed}
        noted.setdefault((cell.folder, cell.evaluation), entry)
    path = Path(configs[0].paths.outputs) / "grids" / f"{grid.name}.json"
    tree = {"name": grid.name, "title": grid.title, "baseline": grid.baseline, "cells": list(noted.values())}
    write_json(path, tree)
    return path


def named(configs: Sequence[RunConfig]) -> list[RunConfig]:
    """The configs with the grid's name in each, so that W&B groups the cells as the table does.

    A grid that nobody named is called after its mixes, with four letters that tell apart grids of the same mixes.
    """
    name = configs[0].grid.name
    if name is None:
        folders = sorted({cell_of(config).folder.name for config in configs})
        name = f"{'-'.join(dict.fromkeys(config.data.name for config in configs))[:60]}-{digest(folders)[:4]}"
    return [replace(config, grid=replace(config.grid, name=name)) for config in configs]


def outlook(configs: Sequence[RunConfig]) -> str | None:
    """What the table of these configs will be able to tell, said before they run. None for a single row, and for no suite.

    The held-out rows of a suite are not counted before they are drawn: there are at most so many.
    """
    from babeltune.evaluation import suites  # readers of every format

    first = configs[0]
    rows: dict[str, set[int]] = {}
    for config, label in zip(configs, row_labels([dump(config) for config in configs]), strict=True):
        rows.setdefault(label, set()).add(config.seed)
    if len(rows) < 2 or first.evaluation.kind == "none":
        return None
    if first.evaluation.kind == "heldout":
        num_items = first.evaluation.max_items * len(first.evaluation.sources)
        return planning.ahead(num_items, min(map(len, rows.values())), len(rows), at_most=True)
    try:
        num_items = len(suites.items(first))
    except BabelTuneError as error:
        return f"what this table will tell apart is not known yet: {error}"
    return planning.ahead(num_items, min(map(len, rows.values())), len(rows))


def row_labels(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A short name for each config: what it says differently from the others. Equal configs but for the seed are named alike.

    >>> row_labels([{"data": {"name": "a"}, "seed": 0}, {"data": {"name": "b"}, "seed": 0}])
    ['a', 'b']
    """
    flat = [flattened({key: part for key, part in config.items() if key not in IGNORED}) | _asked(config) for config in configs]
    names = [f"{group}.{key}" for group, key in NAMED.items()]
    keys = dict.fromkeys([*names, *(key for one in flat for key in one)])
    varying = [key for key in keys if len({json.dumps(one.get(key)) for one in flat}) > 1]
    said = [key for key in varying if key in names or not _follows(key, flat)]
    if not said:
        return [str(one.get("data.name", "run")) for one in flat]
    return ["  ".join(_says(key, one[key]) for key in said if one.get(key) is not None) or "otherwise" for one in flat]


def _asked(config: Mapping[str, Any]) -> dict[str, Any]:
    """How the questions are put, where that is not as they are: the same items may be asked in several ways in one table."""
    prompt = config.get("evaluation", {}).get("prompt", ASKED_AS_IT_IS)
    return {} if prompt == ASKED_AS_IT_IS else {"evaluation.prompt": prompt}


def _follows(key: str, flat: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a key's value is the same wherever its group's option is."""
    group = key.split(".")[0]
    if group not in NAMED:
        return False
    values: dict[Any, set[str]] = {}
    for one in flat:
        values.setdefault(one.get(f"{group}.{NAMED[group]}"), set()).add(json.dumps(one.get(key)))
    return all(len(found) == 1 for found in values.values())


def _says(key: str, value: Any) -> str:
    if key in ("data.name", "model.name"):
        return str(value)
    group, _, last = key.partition(".")
    return f"{group if NAMED.get(group) == last else key}={value}"


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree's values by dotted keys, but for what things are called."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= flattened(value, f"{prefix}{key}.")
        elif not (prefix and key == "title"):
            found[f"{prefix}{key}"] = value
    return found


def read_rows(manifest: Path) -> list[Row]:
    """The rows of a noted grid, from what is on disk now."""
    return rows_of(read_json(manifest), manifest.parents[1])


def rows_of(tree: Mapping[str, Any], outputs: Path) -> list[Row]:
    """The rows of what a manifest says, with folders below `outputs`."""
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

    Raises EvalError when cells were measured in different ways, ConfigError when the baseline is no row.
    """
    return table_of(read_json(manifest), read_rows(manifest))


def table_of(tree: Mapping[str, Any], rows: Sequence[Row]) -> Table:
    """The table of rows that are read already; `tree` is what their manifest says."""
    if tree["baseline"] is not None and tree["baseline"] not in [row.label for row in rows]:
        labels = [row.label for row in rows]
        where = f"the baseline of {tree['name']}"
        raise ConfigError(
            problem(where, repr(tree["baseline"]), f"one of {', '.join(labels)}", nearest(tree["baseline"], labels, 1))
        )
    judged = [row for row in rows if row.scores and any(row.scores)]
    title = tree["title"] or tree["name"]
    if not judged:
        state = [(row.label, "trained, not judged" if row.results else "—") for row in rows]
        return Table(title, ("mix", "state"), tuple(state), ())
    main = next(iter(judged[0].scores[0]))
    check_signatures(judged, main)
    baseline = next((row for row in judged if row.label == (tree["baseline"] or rows[0].label)), judged[0])
    compared = _compare(judged, main, baseline)
    extra = _details(judged, main)
    columns = ("mix", main.split("/")[-1], "Δ", "95 % CI of Δ", "so", "n", "seeds", *(name.split("/")[-1] for name in extra))
    body = tuple(_line(row, compared, extra) for row in rows)
    return Table(title, columns, body, tuple(_notes(judged, main, compared, tree["baseline"])))


@dataclass(frozen=True, slots=True)
class Compared:
    """The judged rows of a table on the items they share, and each against the baseline."""

    main: str
    baseline: Row
    values: Mapping[str, statistics.Floats]
    """Label to seeds by items."""
    seeds: statistics.SeedVariance | None
    differences: Mapping[str, statistics.Difference]
    p_values: Mapping[str, float]
    """Adjusted for the table's other comparisons (Holm)."""
    higher_is_better: bool
    digits: int


def _compare(judged: Sequence[Row], main: str, baseline: Row) -> Compared:
    matrices = statistics.aligned(*([run[main].items for run in row.scores] for row in judged))
    values = {row.label: matrix for row, matrix in zip(judged, matrices, strict=True)}
    seeds = statistics.pooled_seed_variance(list(values.values()))
    differences = {
        label: found
        for label, matrix in values.items()
        if label != baseline.label and (found := statistics.paired_difference(matrix, values[baseline.label], seeds)) is not None
    }
    adjusted = statistics.holm([difference.p_value for difference in differences.values()])
    better = judged[0].scores[0][main].higher_is_better
    return Compared(
        main=main,
        baseline=baseline,
        values=values,
        seeds=seeds,
        differences=differences,
        p_values=dict(zip(differences, adjusted, strict=True)),
        higher_is_better=better,
        digits=1 if better else LOSS_DIGITS,
    )


def _details(judged: Sequence[Row], main: str) -> list[str]:
    """The further columns: the score and the loss in each language; the whole loss where there is only one."""
    suite = main.split("/")[0]
    names = list(dict.fromkeys(name for row in judged for run in row.scores for name in run))
    by_language = [name for name in names if name.startswith(f"{main}_")]
    losses = [name for name in names if name.startswith(f"{suite}/loss_")]
    if len(by_language) < 2:
        by_language, losses = [], [name for name in names if name == f"{suite}/loss"]
    return [name for name in [*by_language, *losses] if name != main]


def _line(row: Row, compared: Compared, extra: Sequence[str]) -> tuple[str, ...]:
    if row.label not in compared.values:
        return (row.label, "—", "", "", "", "0", str(len(row.scores)), *("" for _ in extra))
    own, digits = compared.values[row.label], compared.digits
    mean = statistics.mean_interval(own, compared.seeds)
    difference = compared.differences.get(row.label)
    delta, span, word = ("baseline" if row is compared.baseline else ""), "", ""
    if difference is not None:
        value, low, high = (
            number(figure, sign=True, digits=digits)
            for figure in (difference.interval.value, difference.interval.low, difference.interval.high)
        )
        delta, span = value, f"{low} … {high}"
        word = statistics.verdict(difference, compared.p_values[row.label], compared.higher_is_better)
    return (
        row.label,
        number(None if mean is None else mean.value, digits=digits),
        delta,
        span,
        word,
        str(own.shape[1]),
        str(len(row.scores)),
        *(_detail(row, name) for name in extra),
    )


def _detail(row: Row, name: str) -> str:
    found = [run[name] for run in row.scores if name in run]
    digits = 1 if all(score.higher_is_better for score in found) else LOSS_DIGITS
    return number(_mean([score.value for score in found]), digits=digits)


def summary(manifest: Path, standings: Sequence[Standing]) -> str:
    """What a grid prints when it ends: the table, and how to print it again."""
    folders = [standing.cell.folder for standing in standings if standing.state in ("done", "kept")]
    if not folders:
        return "no cell has finished"
    where = f"folders: {folders[-1].parent}/" if len(folders) > 1 else f"folder: {folders[0]}"
    outputs = manifest.parents[1]
    again = f"again: babeltune table {manifest.stem}" + ("" if str(outputs) == "outputs" else f" --outputs {outputs}")
    return f"{render(table(manifest), 'text')}\n{where}   {again}"


def check_signatures(rows: Sequence[Row], name: str) -> None:
    """Raises EvalError when rows were measured in different ways."""
    found = {run[name].signature for row in rows for run in row.scores if name in run}
    if len(found) != 1 or any(name not in run for row in rows for run in row.scores):
        raise EvalError(
            problem(
                "table",
                f"cells measured in {max(2, len(found))} different ways",
                "one suite and one metric for all rows",
                "evaluation=NAME for the whole grid",
            )
        )


def _notes(rows: Sequence[Row], main: str, compared: Compared, wanted: str | None) -> list[str]:
    score = rows[0].scores[0][main]
    notes = [f"{main}: {score.signature}" + ("" if score.higher_is_better else "; lower is better")]
    if wanted is not None and compared.baseline.label != wanted:
        notes.append(f"the baseline {wanted} has no result yet; {compared.baseline.label} stands in its place")
    unscored = sum(run[main].unscored for row in rows for run in row.scores)
    if unscored:
        notes.append(f"{unscored} items could not be scored and are in no mean")
    shared = next(iter(compared.values.values())).shape[1]
    most = max(len(run[main].items) for row in rows for run in row.scores)
    if shared < most:
        notes.append(f"means are over the {shared} items that every cell has scored, of {most}")
    floor = statistics.noise_floor(compared.seeds, min(len(row.scores) for row in rows))
    if floor is not None:
        notes.append(f"seeds alone move a difference by up to {number(floor, digits=compared.digits)} (95 %)")
    else:
        notes.append("one seed each: intervals cover the choice of items, not that of seeds; add seed=0,1,2")
    baseline = compared.baseline.label
    notes += [
        note
        for note in (
            planning.corrected(len(compared.differences)),
            planning.discordant(compared.values, baseline),
            planning.behind(compared.values, compared.differences, compared.seeds, baseline),
        )
        if note
    ]
    labels = dict.fromkeys(label for row in rows for result in row.results for label in result.labels)
    return notes + [f"read with care: {label}" for label in labels]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
