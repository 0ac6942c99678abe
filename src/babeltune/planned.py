"""What a plan knows of a cell, and where it is kept until the cell is trained. Torch-free."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from babeltune.errors import OutputError
from babeltune.results import read_json, write_json

FOLDER = "plans"
"""Below the cache: a file for each planned cell, named by its identity."""
KEPT = ("seconds", "cpu_seconds", "peak_bytes", "steps", "tokens")
"""What of a plan stands beside the facts in a trained cell's result, under the same names."""
PARTS = ("process", "weights", "adapter", "gradients", "optimizer", "activations", "output and rest")
"""What a peak of memory is made of, in bytes. `process` is Python with its imports, tokenizer and examples."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a cell would take. None stands for what is not known, and `notes` says why."""

    trainable: int | None = None
    total: int | None = None
    """Parameters."""
    tokens: int | None = None
    """Of all steps, without padding."""
    target_tokens: int | None = None
    steps: int | None = None
    memory: Mapping[str, int] = field(default_factory=dict)
    """By the names of `PARTS`; empty when it is not known."""
    free: int | None = None
    """Bytes of memory that there are for it on this machine."""
    loading: float | None = None
    """Seconds until the model is there."""
    seconds: float | None = None
    """Of training, as `training.seconds` counts them."""
    cpu_seconds: float | None = None
    evaluation: float | None = None
    """Seconds, at most: replies may end before they are as long as they may be."""
    starting: float | None = None
    """Seconds that a fresh process takes to import what it needs."""
    disk: Mapping[str, int] = field(default_factory=dict)
    """`kept`: bytes that stay in the cell's folder; `passing`: those of checkpoints; `cache`: tokens that cells share."""
    items: int = 0
    """Of the suite."""
    requests: int = 0
    """What a judge behind an endpoint would be asked, at most."""
    how: str = ""
    """How memory and time were found."""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def peak_bytes(self) -> int | None:
        return sum(self.memory.values()) if self.memory else None


def facts_of(tree: Mapping[str, Any]) -> Facts:
    """The counterpart of `asdict`."""
    return Facts(**{**tree, "notes": tuple(tree["notes"]), "warnings": tuple(tree["warnings"])})


def keep(cache: Path, identity: str, facts: Facts) -> None:
    """Keep what a plan says of a cell that has steps to do. The last plan before training counts."""
    if facts.steps:
        write_json(_place(cache, identity), asdict(facts))


def kept(cache: Path, identity: str) -> dict[str, Any] | None:
    """The figures of `KEPT` of a cell's last plan, or None when it was never planned."""
    with contextlib.suppress(OutputError, KeyError, TypeError):
        facts = facts_of(read_json(_place(cache, identity)))
        return {name: getattr(facts, name) for name in KEPT}
    return None


def _place(cache: Path, identity: str) -> Path:
    return cache / FOLDER / f"{identity}.json"
