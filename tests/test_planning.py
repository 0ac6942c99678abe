"""What a table is said to be able to tell is what it can tell."""

from __future__ import annotations

import re

import numpy as np
import pytest

from babeltune import comparison, planning, statistics
from babeltune.config import compose
from tests.test_statistics import compared, table


def test_before_training_the_line_says_items_seeds_rows_and_differences() -> None:
    assert planning.ahead(150, 2, 5) == (
        "150 items, 2 seeds, 5 rows: expect to find a true difference of 13.8 in 80 % of cases and of 15.6 in 90 % of cases"
    )
    assert planning.ahead(150, 1, 2).endswith("; what seeds add cannot be seen with one")
    assert planning.ahead(150, 2, 5, at_most=True).startswith("at most 150 items")


def test_more_items_or_seeds_find_less_and_more_rows_ask_for_more() -> None:
    def first(*size: int) -> float:
        return float(re.findall(r"difference of ([\d.]+)", planning.ahead(*size))[0])

    assert first(600, 2, 3) < first(150, 2, 3)
    assert first(150, 3, 3) < first(150, 2, 3)
    assert first(150, 2, 9) > first(150, 2, 3) - 2
    assert first(150, 3, 9) > first(150, 3, 3)


def test_what_is_said_after_a_table_is_found_as_often_as_said() -> None:
    rng = np.random.default_rng(0)
    cells = [table(rng, "graded", 150, 3, 1.0, (0.0,) * 4) for _ in range(40)]
    said = []
    for rows in cells:
        values = {f"r{place}": cell for place, cell in enumerate(rows)}
        seeds = statistics.pooled_seed_variance(rows)
        pairs = {label: statistics.paired_difference(cell, values["r0"], seeds) for label, cell in values.items() if label != "r0"}
        said.append(planning.behind(values, {label: pair for label, pair in pairs.items() if pair}, seeds, "r0"))
    shifts = [float(re.findall(r"difference of ([\d.]+) in 80 %", sentence)[0]) for sentence in said]
    shift = float(np.median(shifts))
    again = [compared(table(rng, "graded", 150, 3, 1.0, (shift, 0.0, 0.0, 0.0))).p_value < 0.05 / 3 for _ in range(600)]
    assert 0.7 <= np.mean(again) <= 0.92


def test_nothing_is_said_where_nothing_was_compared() -> None:
    alone = {"a": np.array([[100.0, 0.0]])}
    assert planning.behind(alone, {}, None, "a") == ""
    assert planning.discordant(alone, "a") == ""
    assert planning.corrected(1) == ""


def test_mcnemar_counts_the_items_that_one_run_alone_has_right() -> None:
    base = np.array([[100.0] * 10 + [0.0] * 10, [0.0] * 20])
    values = {"base": base, "worse": np.zeros((2, 20)), "same": base}
    assert planning.discordant(values, "base") == (
        "right where base is wrong : the reverse, by one run each (McNemar and Holm): "
        "worse 0 : 10, p = 0.004; same 0 : 0, p = 1.000"
    )
    assert planning.discordant({"base": base, "graded": base / 2 + 1}, "base") == ""


@pytest.mark.parametrize(
    ("cells", "begins"),
    [
        ([["data=toy_zh", "evaluation=toy_zh"], ["data=toy_en", "evaluation=toy_zh"]], "150 items, 1 seed, 2 rows: "),
        ([["data=toy_zh", f"seed={seed}"] for seed in (0, 1)], None),
        ([["data=toy_zh", "evaluation=none"], ["data=toy_en", "evaluation=none"]], None),
        ([["data=zh_alpaca4"], ["data=en_alpaca"]], "at most "),
        (
            [["data=toy_zh", "evaluation=mmlu"], ["data=toy_en", "evaluation=mmlu"]],
            "what this table will tell apart is not known yet: ",
        ),
    ],
)
def test_a_grid_says_beforehand_what_it_will_tell(cells: list[list[str]], begins: str | None) -> None:
    said = comparison.outlook([compose(["scale=quick", *cell]) for cell in cells])
    assert (said is None) == (begins is None)
    assert said is None or said.startswith(str(begins))
