"""Cells that look finished, written without training anything."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from babeltune import comparison
from babeltune.cells import cell_of
from babeltune.config import compose, dump
from babeltune.options import PathsConfig, RunConfig
from babeltune.records import Score
from babeltune.results import ASKED, RunResult, write_json, write_result, write_text


@functools.cache
def composed(*overrides: str) -> RunConfig:
    """Composed once: tests ask for the same cells again and again, and nobody assigns to a config."""
    return compose(list(overrides))


def score(name: str, items: Mapping[str, float], signature: str = "s1", higher_is_better: bool = True) -> Score:
    value = sum(items.values()) / len(items) if items else None
    return Score(name, value, len(items), 0, signature, higher_is_better, dict(items))


def finish(
    overrides: Sequence[str],
    scores: Sequence[Score],
    outputs: Path,
    labels: tuple[str, ...] = (),
    *,
    ledger: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    url: str | None = None,
) -> Path:
    """Write a cell's folder as if it had been trained and judged. Returns it."""
    cell = cell_of(replace(composed(*overrides), paths=PathsConfig(outputs=str(outputs))))
    named = {one.name: one for one in scores}
    write_json(cell.folder / "trained.json", {"steps": 1})
    write_json(cell.folder / "identity.json", {"identity": cell.identity, "parts": cell.parts})
    write_text(cell.folder / "config.yaml", yaml.safe_dump(dump(cell.config), allow_unicode=True))
    judged = cell.folder / "evaluations" / cell.evaluation[:8]
    write_json(judged / "asked.json", {group: dump(getattr(cell.config, group)) for group in ASKED})
    write_json(judged / "scores.json", {n: asdict(one) for n, one in named.items()})
    result = RunResult(
        cell=cell.folder.name,
        identity=cell.identity,
        evaluation=cell.evaluation,
        config=dump(cell.config),
        scores=named,
        ledger=ledger or {},
        training={"steps": 1, **(training or {})},
        labels=labels,
        tracking={"url": url} if url else {},
    )
    write_result(cell.folder, result)
    return cell.folder


def note(cells: Sequence[Sequence[str]], outputs: Path) -> Path:
    """The manifest of a grid of these cells."""
    configs = [replace(composed(*cell), paths=PathsConfig(outputs=str(outputs))) for cell in cells]
    return comparison.write_manifest(comparison.named(configs))
