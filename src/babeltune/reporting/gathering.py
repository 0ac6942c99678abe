"""Which cells a report is about: a grid, or folders of cells, as rows of one comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from babeltune import comparison
from babeltune.comparison import Row
from babeltune.errors import ConfigError, OutputError, nearest, problem
from babeltune.records import Score
from babeltune.results import RunResult, read_evaluation, read_json, read_result

Entry = Mapping[str, Any]
"""A cell as a grid's manifest lists it: folder, evaluation, label, seed."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One cell of a report."""

    label: str
    seed: int
    folder: Path
    evaluation: str
    result: RunResult | None
    scores: Mapping[str, Score]
    """Empty where it was not judged."""

    @property
    def judged(self) -> Path:
        """The folder of its answers and scores."""
        return self.folder / "evaluations" / self.evaluation[:8]

    @property
    def state(self) -> str:
        if self.result is not None:
            return "finished"
        return "not finished" if self.folder.is_dir() else "not started"


@dataclass(frozen=True)
class Gathered:
    """The cells of a report, and the tree that makes their table."""

    asked: tuple[str, ...]
    tree: Mapping[str, Any]
    outputs: Path
    cells: tuple[Shown, ...]

    @property
    def title(self) -> str:
        return str(self.tree["title"] or self.tree["name"])

    @cached_property
    def rows(self) -> list[Row]:
        return comparison.rows_of(self.tree, self.outputs)

    @property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(cell.label for cell in self.cells))

    @property
    def judged(self) -> list[Row]:
        return [row for row in self.rows if any(row.scores)]

    @property
    def main(self) -> str | None:
        """The name of the score that the table shows."""
        return next((next(iter(scores)) for row in self.judged for scores in row.scores if scores), None)

    def of(self, label: str) -> list[Shown]:
        return [cell for cell in self.cells if cell.label == label]

    def first(self, label: str) -> Shown | None:
        """The finished cell that speaks for a row."""
        return next((cell for cell in self.of(label) if cell.result is not None), None)

    @cached_property
    def firsts(self) -> list[Shown]:
        return [cell for label in self.labels if (cell := self.first(label)) is not None]


def gather(asked: Sequence[str], outputs: Path) -> Gathered:
    """The cells that these words name: one grid, or folders of cells and any grids together.

    Raises ConfigError for a word that is neither.
    """
    manifest = _manifest(asked[0], outputs) if len(asked) == 1 else None
    tree = _together(asked, outputs) if manifest is None else dict(read_json(manifest))
    home = outputs if manifest is None else manifest.parents[1]
    return Gathered(tuple(asked), tree, home, tuple(_shown(entry, home) for entry in tree["cells"]))


def _manifest(word: str, outputs: Path) -> Path | None:
    path = outputs / "grids" / f"{word}.json"
    return path if path.is_file() else None


def _together(asked: Sequence[str], outputs: Path) -> dict[str, Any]:
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    for word in asked:
        for entry in _entries(word, outputs):
            entries.setdefault((entry["folder"], entry["evaluation"]), entry)
    cells = list(entries.values())
    configs = [_config(Path(entry["folder"])) for entry in cells]
    known = [config for config in configs if config is not None]
    labels = iter(comparison.row_labels(known))
    for entry, config in zip(cells, configs, strict=True):
        entry["label"] = Path(entry["folder"]).name if config is None else next(labels)
    return {"name": ", ".join(Path(word).name for word in asked), "title": "", "baseline": None, "cells": cells}


def _entries(word: str, outputs: Path) -> list[dict[str, Any]]:
    manifest = _manifest(word, outputs)
    if manifest is not None:
        return [{**entry, "folder": str((outputs / entry["folder"]).resolve())} for entry in read_json(manifest)["cells"]]
    folder = next((path for path in (Path(word), outputs / word) if (path / "result.json").is_file()), None)
    if folder is None:
        known = [path.stem for path in sorted((outputs / "grids").glob("*.json"))]
        known += [path.parent.name for path in sorted(outputs.glob("*/result.json"))]
        hint = nearest(word, known, 1) if known else "python train.py sweeps=demo"
        raise ConfigError(problem("report", repr(word), f"a grid in {outputs / 'grids'}, or a finished cell's folder", hint))
    result = read_result(folder)
    assert result is not None
    return [{"folder": str(folder.resolve()), "evaluation": result.evaluation, "label": "", "seed": result.config["seed"]}]


def _config(folder: Path) -> Mapping[str, Any] | None:
    """What was asked of a cell; None for one that was not started."""
    result = read_result(folder)
    if result is not None:
        return result.config
    path = folder / "config.yaml"
    if not path.is_file():
        return None
    found: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def _shown(entry: Entry, home: Path) -> Shown:
    folder = home / entry["folder"]
    scores = read_evaluation(folder, entry["evaluation"])
    result = read_result(folder)
    prepared = result is not None and result.config["stage"]["kind"] == "prepare"
    finished = result if prepared or scores is not None else None
    return Shown(entry["label"], entry["seed"], folder, entry["evaluation"], finished, scores or {})


def items(cell: Shown) -> list[dict[str, Any]]:
    """The questions that a cell was asked, as `items.json` has them; none where it was asked none."""
    path = cell.judged / "items.json"
    if not path.is_file():
        return []
    found = read_json(path)
    if not isinstance(found, list):
        raise OutputError(problem(str(path), type(found).__name__, "a list of items", f"deleting {path.parent}"))
    return found
