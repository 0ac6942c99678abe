"""What the steps of a run are like, and which few of them stand for all."""

# K steps of a run

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

MEASURED = (1 / 6, 1 / 2, 5 / 6)
"""Of the steps by how much they compute, the ones that are timed beside the largest."""
ALIKE = 1.2
"""Mixes whose mean lengths are this near share a calibration."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The sizes of a run's steps."""

    examples_K: Counts
    tokens_K: Counts
    targets_K: Counts
    longest_K: Counts
    """Tokens of the longest example."""

    @property
    def tokens(self) -> int:
        return int(self.tokens_K.sum())

    @property
    def targets(self) -> int:
        return int(self.targets_K.sum())

    def __len__(self) -> int:
        return len(self.tokens_K)


@dataclass(frozen=True, slots=True)
class Weighing:
    """How much a token and a target compute, in parameters that each passes: those of the layers, and those of the output layer."""

    body: int
    head: int

    def cost(self, tokens: Any, targets: Any) -> Any:
        return tokens * self.body + targets * self.head


def steps_of(plan: Any) -> Steps:
    """The sizes of all steps of a `data.batching.Plan`."""
    columns: list[tuple[int, int, int, int]] = []
    for number in range(plan.total_steps):
        chosen = plan.step(number)
        lengths = plan.lengths[chosen]
        columns.append((len(chosen), int(lengths.sum()), int(plan.target_counts[chosen].sum()), int(lengths.max())))
    return Steps(*np.asarray(columns, np.int64).T)


def chosen_steps(steps: Steps, weighing: Weighing) -> list[int]:
    """Steps of full size: first that with the most tokens, whose memory is the peak; then those with the most targets and with
    the longest example, and a few that stand for the rest."""
    full = np.flatnonzero(steps.examples_K == steps.examples_K.max())
    cost_K = weighing.cost(steps.tokens_K[full], steps.targets_K[full])
    by_cost = full[np.argsort(cost_K, kind="stable")]
    extremes = [full[column[full].argmax()] for column in (steps.tokens_K, steps.targets_K, steps.longest_K)]
    middle = [by_cost[int(share * len(by_cost))] for share in MEASURED]
    return list(dict.fromkeys(int(number) for number in [*extremes, *middle]))


def examples_of_steps(plan: Any, chosen: Sequence[int], size: int) -> list[list[int]]:
    """The numbers of `size` examples of each chosen step, the longest of the step among them."""
    taken = []
    for number in chosen:
        examples = plan.step(number)
        longest = int(plan.lengths[examples].argmax())
        order = [longest, *(place for place in range(len(examples)) if place != longest)]
        taken.append([int(examples[place]) for place in order[:size]])
    return taken


def alike(steps: Steps) -> Mapping[str, int]:
    """What mixes must have in common to share a calibration: the sizes of a step, in powers of `ALIKE`."""
    columns = {"tokens": steps.tokens_K.mean(), "targets": steps.targets_K.mean(), "longest": steps.longest_K.max()}
    sizes = {name: round(math.log(max(1.0, float(value))) / math.log(ALIKE)) for name, value in columns.items()}
    return sizes | {"examples": int(steps.examples_K.max())}
