"""What a table can tell: before anything is trained, from how many items and seeds there will be; and after, from what was seen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from babeltune import statistics
from babeltune.statistics import Difference, Floats, SeedVariance
from babeltune.tables import number

POWERS = (0.8, 0.9)
"""How often a difference is to be found."""

SUPPOSED_ITEM_SD = 50.0
"""Of an item's difference between two runs, in points, before anything is known: as where every fourth item turns over."""

SUPPOSED_SEED_SD = 2.0
"""Of the shift that a seed gives to all items, in points, before anything is known."""

SMALLEST_P = 0.001


def ahead(num_items: int, num_seeds: int, num_rows: int, at_most: bool = False) -> str:
    """What a table of so many rows will tell apart, said before it is made. For scores in points of 100.

    Between means over S runs an item's difference varies less than between two runs; by how much is not known yet, so the whole
    `SUPPOSED_ITEM_SD` is reckoned with where S is 1 and its half, which no seed takes away, and the other half over S otherwise.
    """
    item_sd = SUPPOSED_ITEM_SD * (0.5 + 0.5 / max(1, num_seeds)) ** 0.5
    seed_sd = SUPPOSED_SEED_SD if num_seeds > 1 else 0.0
    found = _found(num_items, num_seeds, item_sd, seed_sd, degrees=max(1, num_rows * (num_seeds - 1)), comparisons=num_rows - 1)
    words = f"{'at most ' if at_most else ''}{num_items} items, {num_seeds} {'seed' if num_seeds == 1 else 'seeds'}"
    unseen = "; what seeds add cannot be seen with one" if num_seeds == 1 else ""
    return f"{words}, {num_rows} rows: expect to find {_said(found, 1)}{unseen}"


def behind(values: Mapping[str, Floats], differences: Mapping[str, Difference], seeds: SeedVariance | None, baseline: str) -> str:
    """What the table's rows could tell apart, from the spread that they showed. Empty where nothing was compared.

    `values` is label to seeds by items. The rows' middle spread stands for all.
    """
    compared = [label for label in differences if values[label].shape[1] > 1]
    if not compared:
        return ""
    base = values[baseline]
    spreads = [float((values[label].mean(axis=0) - base.mean(axis=0)).std(ddof=1)) for label in compared]
    num_seeds = min(len(cell) for cell in values.values())
    seed_sd = 0.0 if seeds is None else seeds.effect**0.5
    degrees = 1 if seeds is None else seeds.degrees_of_freedom
    item_sd = float(np.median(spreads))
    if item_sd == 0 and seed_sd == 0:
        return ""
    found = _found(base.shape[1], num_seeds, item_sd, seed_sd, degrees=degrees, comparisons=len(compared))
    digits = 1 if max(found.values()) >= 1 else 3
    return f"a table like this one finds {_said(found, digits)}"


def discordant(values: Mapping[str, Floats], baseline: str) -> str:
    """McNemar's test of each row against the baseline, for items that are right or wrong; empty for graded ones.

    One run of each row, the first: seeds of one mix share their items, so that runs cannot be added up.
    """
    if np.count_nonzero(np.unique(np.concatenate([cell.ravel() for cell in values.values()]))) != 1:
        return ""
    base = values[baseline][0]
    p_values, said = [], []
    for label, cell in values.items():
        p_value = None if label == baseline else statistics.mcnemar(cell[0], base)
        if p_value is not None:
            p_values.append(p_value)
            said.append(f"{label} {np.sum((cell[0] != 0) & (base == 0))} : {np.sum((cell[0] == 0) & (base != 0))}")
    if not said:
        return ""
    adjusted = statistics.holm(p_values)
    rows = [f"{words}, {_p(p_value)}" for words, p_value in zip(said, adjusted, strict=True)]
    corrected = " and Holm" if len(rows) > 1 else ""
    return f"right where {baseline} is wrong : the reverse, by one run each (McNemar{corrected}): {'; '.join(rows)}"


def corrected(num_comparisons: int) -> str:
    """What `so` allows for; empty for one comparison, which needs no correction."""
    if num_comparisons < 2:
        return ""
    return f"so: any false word among the {num_comparisons} comparisons has a chance below 5 % (Holm)"


def _found(num_items: int, num_seeds: int, item_sd: float, seed_sd: float, degrees: float, comparisons: int) -> dict[float, float]:
    """Power to the difference that is found with it."""
    found = {}
    for power in POWERS:
        difference = statistics.minimal_detectable_difference(
            num_items, num_seeds, item_sd, seed_sd, power, degrees, max(1, comparisons)
        )
        assert difference is not None, "a table has items and seeds"
        found[power] = difference
    return found


def _said(found: Mapping[float, float], digits: int) -> str:
    shares = [f"{number(difference, digits=digits)} in {100 * power:.0f} % of cases" for power, difference in found.items()]
    return f"a true difference of {' and of '.join(shares)}"


def _p(value: float) -> str:
    return f"p < {SMALLEST_P}" if value < SMALLEST_P else f"p = {value:.3f}"
