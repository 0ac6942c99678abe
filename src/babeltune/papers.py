"""A paper's table beside our own numbers: paper | ours | difference | confidence. Torch-free; reads results and nothing else.

The reported values are data, in `conf/paper/`. A row names the cell that reproduces it; whatever finished cells match are shown,
with what sets them apart from the paper's said below, and the command that makes a missing one.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from babeltune import statistics
from babeltune.config import CONF, compose, dump
from babeltune.errors import ConfigError, nearest, problem
from babeltune.help import first_comment
from babeltune.results import RunResult, find_results
from babeltune.tables import Table, number

UNTOLD = ("seed", "paths", "logger", "grid", "trainer", "evaluation", "scale", "decoding")
"""Groups in which a cell may differ from the recipe without being another way to train."""


@dataclass(frozen=True, slots=True)
class Ours:
    """The finished cells that stand for one row: one way of training and measuring, any seeds."""

    results: tuple[RunResult, ...]
    departures: tuple[str, ...]
    """Keys in which they differ from the paper's recipe at their scale, each with its value."""
    others: int
    """Finished cells of the same model and mix that were trained or measured in other ways."""

    @property
    def scale(self) -> str:
        return str(self.results[0].config["scale"]["name"])

    @property
    def name(self) -> str:
        return next(iter(self.results[0].scores), "")

    @property
    def items(self) -> list[Mapping[str, float]]:
        return [result.scores[self.name].items for result in self.results]


def names() -> dict[str, Path]:
    """Every table there is, and the file it is in."""
    files = sorted((CONF / "paper").glob("*.yaml"))
    return {name: path for path in files for name in yaml.safe_load(path.read_text(encoding="utf-8"))}


def table(name: str, outputs: Path) -> Table:
    """The paper's table with what has been run so far. Raises ConfigError for a table that there is not."""
    files = names()
    if name not in files:
        raise ConfigError(problem("paper", repr(name), f"one of {', '.join(files)}", nearest(name, files)))
    spec = yaml.safe_load(files[name].read_text(encoding="utf-8"))[name]
    finished = list(find_results(outputs))
    ours = [_ours(row, spec, finished) for row in spec["rows"]]
    columns = ("factor", *spec["axes"].values(), "paper", "ours", "95 % CI", "ours − paper", "n", "seeds")
    body = tuple(_line(row, spec, found) for row, found in zip(spec["rows"], ours, strict=True))
    notes = [first_comment(files[name]), f"paper: {spec['measure']}", *_notes(spec, ours)]
    return Table(spec["title"], columns, body, tuple(notes))


def _ours(row: Mapping[str, Any], spec: Mapping[str, Any], finished: Sequence[RunResult]) -> Ours | None:
    """The cells that match a row; of several ways the paper's scale first, then the nearest recipe, then the most seeds."""
    matching = [result for result in finished if "data" in row and result.scores and _matches(result, row, spec)]
    ways: dict[str, list[RunResult]] = {}
    for result in matching:
        score = next(iter(result.scores.values()))
        told = {key: part for key, part in result.config.items() if key not in ("seed", "paths", "logger", "grid", "trainer")}
        ways.setdefault(json.dumps([told, score.name, score.signature, score.n], sort_keys=True), []).append(result)
    found = [Ours(tuple(way), _departures(way[0].config, row, spec["recipe"]), len(matching) - len(way)) for way in ways.values()]
    return max(found, key=lambda one: (one.scale == "paper", -len(one.departures), len(one.results)), default=None)


def _departures(config: Mapping[str, Any], row: Mapping[str, Any], recipe: str) -> tuple[str, ...]:
    """Where a finished cell was trained otherwise than the paper's recipe says, at the same scale."""
    wanted = _flat(_recipe(recipe, row["model"], row["data"], config["scale"]["name"]))
    own = _flat(config)
    return tuple(f"{key}={value}" for key, value in own.items() if key in wanted and wanted[key] != value)


@functools.cache
def _recipe(recipe: str, model: str, data: str, scale: str) -> dict[str, Any]:
    return dump(compose([*recipe.split(), f"model={model}", f"data={data}", f"scale={scale}"]))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if not prefix and key in UNTOLD:
            continue
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _matches(result: RunResult, row: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    return all(result.config[axis]["name"] == row[axis] for axis in spec["axes"]) and result.config["stage"]["kind"] == "tune"


def _line(row: Mapping[str, Any], spec: Mapping[str, Any], ours: Ours | None) -> tuple[str, ...]:
    said = [_title(CONF / axis / f"{row[axis]}.yaml") if axis in row else "—" for axis in spec["axes"]]
    paper = f"{row['reported']:.3f}"
    if ours is None:
        return (row["factor"], *said, paper, "—", "", "", "", "")
    (values,) = statistics.aligned(ours.items)
    mean = statistics.mean_interval(values)
    assert mean is not None
    difference = "not comparable" if not _same_measure(spec, ours) else number(mean.value - row["reported"], sign=True, digits=3)
    return (
        row["factor"],
        *said,
        paper,
        f"{number(mean.value)} {ours.name.split('/')[-1]}",
        f"{number(mean.low)} … {number(mean.high)}",
        difference,
        str(mean.num_items),
        str(len(ours.results)),
    )


def _same_measure(spec: Mapping[str, Any], ours: Ours) -> bool:
    return ours.name in spec.get("ours", ())


def _title(path: Path) -> str:
    if not path.exists():
        return path.stem
    tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return str(tree.get("title") or path.stem)


def _notes(spec: Mapping[str, Any], ours: Sequence[Ours | None]) -> list[str]:
    notes = []
    pairs = [(row, found) for row, found in zip(spec["rows"], ours, strict=True) if found is not None]
    if any(not _same_measure(spec, found) for _, found in pairs):
        notes.append(f"ours: {pairs[0][1].name}, another measure than the paper's; orderings may be compared, numbers may not")
    notes += _orderings(pairs)
    labels = dict.fromkeys(label for _, found in pairs for result in found.results for label in result.labels)
    notes += [f"read with care: {label}" for label in labels]
    departures = dict.fromkeys(said for _, found in pairs for said in found.departures)
    notes += [f"read with care: {said}, which is not the paper's recipe" for said in departures]
    if any(found.others for _, found in pairs):
        number_of = max(found.others for _, found in pairs)
        notes.append(f"up to {number_of} more cells a row were trained or measured in other ways and are in no figure here")
    missing = [row for row, found in zip(spec["rows"], ours, strict=True) if found is None and "data" in row]
    if missing:
        total = sum("data" in row for row in spec["rows"])
        notes.append(f"missing: {len(missing)} of {total} rows. To make them (add scale=paper for the paper's own size):")
        notes += list(dict.fromkeys(f"  {_command(row, spec)}" for row in missing))
    return notes


def _command(row: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    sweep = spec.get("sweep", {}).get(row["factor"])
    if sweep:
        return f"python train.py sweeps={sweep} paths.data=FOLDER"
    return f"python train.py {spec['recipe']} model={row['model']} data={row['data']} paths.data=FOLDER"


def _orderings(pairs: Sequence[tuple[Mapping[str, Any], Ours]]) -> list[str]:
    """For neighbouring rows of one factor: does our difference point where the paper's does, and is it more than noise?"""
    found = []
    for (first, ours_first), (second, ours_second) in itertools.pairwise(pairs):
        alike = _measured(ours_first) == _measured(ours_second) and ours_first.scale == ours_second.scale
        if first["factor"] != second["factor"] or not alike:
            continue
        a, b = statistics.aligned(ours_second.items, ours_first.items)
        difference = statistics.paired_difference(a, b)
        if difference is None:
            continue
        paper = second["reported"] - first["reported"]
        own = difference.interval
        if difference.p_value >= 0.05:
            word = "not told apart here"
        else:
            better = ours_first.results[0].scores[ours_first.name].higher_is_better
            word = "the same order here" if ((own.value > 0) == better) == (paper > 0) else "the opposite order here"
        found.append(
            f"{_said(second, first)} against {_said(first, second)}: paper {number(paper, sign=True, digits=3)}, "
            f"ours {number(own.value, sign=True)} ({number(own.low, sign=True)} … {number(own.high, sign=True)}): {word}"
        )
    return found


def _measured(ours: Ours) -> tuple[str, str]:
    return ours.name, ours.results[0].scores[ours.name].signature


def _said(row: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """A row by what sets it apart from the other."""
    return str(row["data"] if row["data"] != other["data"] else row["model"])
