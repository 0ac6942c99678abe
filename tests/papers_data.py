"""Invented results for the papers' tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from babeltune.records import Score
from tests.finished import composed, finish, score

NUM_ITEMS = 20


def rows_for(overrides: Sequence[str], data: Path) -> None:
    """One row for each source of a cell and of its suite, so that the cell has an identity."""
    config = composed(*overrides)
    for source in [*config.data.sources.values(), *config.evaluation.sources.values()]:
        for pattern in source.files or ["a.jsonl"]:
            path = data / source.name / pattern.replace("**/", "").replace("*", "x").replace("?", "x")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("[]")


def values(mean: float, spread: float = 2.0, num: int = NUM_ITEMS) -> dict[str, float]:
    """Items around a mean."""
    return {f"i{n}": mean + spread * (n % 5 - 2) / 2 for n in range(num)}


def named(name: str, mean: float, signature: str = "s1") -> Score:
    return score(name, values(mean), signature)


def classes(suite: str, means: dict[str, float], size: int = 6) -> list[Score]:
    """A score for each class, over items of its own."""
    return [score(f"{suite}_{name}", {f"{name}{n}": mean + n % 3 - 1 for n in range(size)}) for name, mean in means.items()]


def done(outputs: Path, overrides: Iterable[str], scores: Sequence[Score], **known: Any) -> Path:
    """A finished cell below `outputs`, with its data in the current folder. Returns its folder."""
    words = list(overrides)
    rows_for(words, Path("data"))
    return finish(words, scores, outputs, **known)
