"""The training curves of a cell, from its `metrics.jsonl`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from babeltune.reporting.gathering import Shown

WHOLE = "loss"
"""The name of the whole mix's loss; the others are called after their sources."""
_LOSS = "train/loss"

Curve = list[tuple[float, float]]
"""Step and loss."""


def losses(cell: Shown) -> dict[str, Curve]:
    """The losses of a cell's training: the whole, then each source's. Empty for a cell that trained nothing."""
    curves: dict[str, Curve] = {}
    for line in _lines(cell):
        for name, value in line.items():
            if name == _LOSS or name.startswith(f"{_LOSS}_"):
                curves.setdefault(name.removeprefix(f"{_LOSS}_") if name != _LOSS else WHOLE, []).append((line["step"], value))
    return curves


def thinned(curve: Sequence[tuple[float, float]], points: int) -> Curve:
    """At most so many points: each the mean of its neighbours, at their mean step."""
    if len(curve) <= points:
        return list(curve)
    ends = [len(curve) * place // points for place in range(points + 1)]
    parts = [curve[start:end] for start, end in itertools.pairwise(ends)]
    return [(sum(step for step, _ in part) / len(part), sum(loss for _, loss in part) / len(part)) for part in parts]


def _lines(cell: Shown) -> Iterator[dict[str, Any]]:
    """The file's lines, up to one that a crash has cut off."""
    path = cell.folder / "metrics.jsonl"
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for text in file:
            try:
                yield json.loads(text)
            except json.JSONDecodeError:
                return
