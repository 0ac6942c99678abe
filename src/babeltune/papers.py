"""A paper's table beside our own numbers: paper | ours | difference | confidence. Torch-free; reads results and nothing else.

The reported values are data, in `conf/paper/`. A row names the cell that reproduces it; whatever finished cells match are shown,
with what sets them apart from the paper's said below, and the command that makes a missing one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from babeltune import statistics
from babeltune.config import CONF
from babeltune.errors import ConfigError, nearest, problem
from babeltune.help import first_comment
from babeltune.results import RunResult, find_results
from babeltune.tables import Table, number


@dataclass(frozen=True, slots=True)
class Ours:
    """The finished cells that stand for one row: one way of measuring, one scale, any seeds."""

    results: tuple[RunResult, ...]

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
    """The cells that match a row; of several scales the paper's own, else the one with the most seeds."""
    if "data" not in row:
        return None
    matching = [result for result in finished if result.scores and _matches(result, row, spec)]
    if not matching:
        return None
    ways: dict[tuple[str, ...], list[RunResult]] = {}
    for result in matching:
        score = next(iter(result.scores.values()))
        ways.setdefault((result.config["scale"]["name"], score.signature, str(score.n)), []).append(result)
    best = max(ways.items(), key=lambda way: (way[0][0] == "paper", len(way[1])))
    return Ours(tuple(best[1]))


def _matches(result: RunResult, row: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    return all(result.config[axis]["name"] == row[axis] for axis in spec["axes"]) and result.config["stage"]["kind"] == "tune"


def _line(row: Mapping[str, Any], spec: Mapping[str, Any], ours: Ours | None) -> tuple[str, ...]:
    known = {path.stem: _title(path) for axis in spec["axes"] for path in (CONF / axis).glob("*.yaml")}
    said = [known.get(row.get(axis, ""), row.get(axis, "—")) for axis in spec["axes"]]
    paper = f"{row['reported']:.3f}"
    if ours is None:
        return (row["factor"], *said, paper, "—", "", "", "", "")
    (values,) = statistics.aligned(ours.items)
    mean = statistics.mean_interval(values)
    assert mean is not None
    difference = "not comparable" if not _same_measure(spec, ours) else number(mean.value - row["reported"], sign=True, digits=3)
    return (
        row["factor"], *said, paper, f"{number(mean.value)} {ours.name.split('/')[-1]}",
        f"{number(mean.low)} … {number(mean.high)}", difference, str(mean.num_items), str(len(ours.results)),
    )


def _same_measure(spec: Mapping[str, Any], ours: Ours) -> bool:
    return ours.name in spec.get("ours", ())


def _title(path: Path) -> str:
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
    missing = [row for row, found in zip(spec["rows"], ours, strict=True) if found is None and "data" in row]
    if missing:
        notes.append(f"missing: {len(missing)} of {sum('data' in row for row in spec['rows'])} rows. To make them:")
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
    for (first, ours_first), (second, ours_second) in zip(pairs, pairs[1:], strict=False):
        if first["factor"] != second["factor"] or ours_first.name != ours_second.name:
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
            word = "the same order here" if (own.value > 0) == (paper > 0) else "the opposite order here"
        found.append(
            f"{second['data']} against {first['data']}: paper {number(paper, sign=True, digits=3)}, "
            f"ours {number(own.value, sign=True)} ({number(own.low, sign=True)} … {number(own.high, sign=True)}): {word}"
        )
    return found
