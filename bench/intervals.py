"""How often the tables' intervals and verdicts are right, on simulated tables; and what they say of published comparisons.

    python bench/intervals.py --tables 2000
    python bench/intervals.py --data FOLDER

Simulated rows are those of tests/test_statistics.py. `cover`: 95 % intervals of a difference that hold the truth. `A/A`: two rows
of one mix called different at 0.05. `found`: a planted 15 points called different. `bootstrap`: `cover` of the crossed bootstrap,
of a tenth of the tables. FOLDER has eval_alpacaeval_outputs and eval_vicuna80_table, verdicts of GPT-4 on real answers.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.test_statistics import compared, table

from babeltune import statistics
from babeltune.tables import Table, render

Kind = Literal["graded", "right or wrong"]

CASES = [
    (num_items, num_seeds, num_rows, seed_sd)
    for num_items, (num_seeds, num_rows), seed_sd in itertools.product(
        (50, 150, 400), ((2, 3), (2, 6), (3, 3), (3, 6)), (0.0, 2.0, 5.0)
    )
]
RESAMPLES = 1000

PUBLISHED_WIN_RATES = {"alpaca-7b": (26.45962733, 1.53571147), "gpt4": (95.27950311, 0.71628144)}
"""Win rate and standard error: github.com/tatsu-lab/alpaca_eval, leaderboards/data_AlpacaEval/alpaca_eval_gpt4_leaderboard.csv."""

PUBLISHED_TOTALS = {
    "llama-13b_vicuna-13b": (513.0, 694.0),
    "alpaca-13b_vicuna-13b": (583.0, 704.0),
    "bard_vicuna-13b": (664.0, 655.5),
    "gpt35_vicuna-13b": (693.0, 638.0),
}
"""Sums of scores: https://lmsys.org/blog/2023-03-30-vicuna, table 2."""

METAMATH_ITEMS = 1319
METAMATH = {
    "rslora r64": 0.5299469294920395,
    "miss": 0.5087187263078089,
    "full": 0.5003790750568613,
    "dora r32": 0.4943138741470811,
    "oft r32": 0.4935557240333586,
    "lora r32": 0.48218347232752085,
    "lora-fa r32": 0.42987111448066717,
    "unilora": 0.416,
    "lokr r32": 0.360,
    "vera": 0.354,
}
"""Accuracy on GSM8K's test set, one training each: github.com/huggingface/peft, method_comparison/MetaMathQA/results; the last
three, to a tenth of a point, from its pull request 3552."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=1000, help="simulated for each case")
    parser.add_argument("--data", type=Path, help="published verdicts, in place of simulated ones")
    options = parser.parse_args()
    if options.data is None:
        print(render(simulated(options.tables)))
        return
    print("\n\n".join(render(made) for made in (win_rates(options.data), reviews(options.data), methods())))


def simulated(num_tables: int) -> Table:
    rows, figures = [], []
    for kind, case in itertools.product(("graded", "right or wrong"), CASES):
        shares = measured(kind, *case, num_tables)  # type: ignore[arg-type]
        figures.append(shares)
        rows.append((kind, *map(str, case), *(f"{share:.1%}" for share in shares)))
    for name, pick in (("mean", np.mean), ("least", np.min), ("most", np.max)):
        rows.append((name, "", "", "", "", *(f"{share:.1%}" for share in pick(figures, axis=0))))
    columns = ("values", "items", "seeds", "rows", "seed sd", "cover", "A/A", "found", "bootstrap")
    return Table(f"{num_tables} tables for each case", columns, tuple(rows))


def measured(kind: Kind, num_items: int, num_seeds: int, num_rows: int, seed_sd: float, num_tables: int) -> tuple[float, ...]:
    """Shares: covering, called different though the same, found, covering by bootstrap."""
    rng = np.random.default_rng(0)
    scale = 1.0 if kind == "graded" else 9.06 / 15  # of scores of sd 23.5 whose cut at 50 moves by so many points
    size = (num_items, num_seeds, seed_sd * scale)
    even = (0.0,) * num_rows
    covering, false, found, resampled = [], [], [], []
    for number in range(num_tables):
        cells = table(rng, kind, *size, even)
        interval = compared(cells).interval
        covering.append(interval.low <= 0 <= interval.high)
        false.append(compared(table(rng, kind, *size, even, item_by_mix=0.0)).p_value < 0.05)
        found.append(compared(table(rng, kind, *size, (15.0 * scale, *even[1:]))).p_value < 0.05)
        if number % 10 == 0:
            boot = statistics.crossed_bootstrap(cells[0], cells[1], RESAMPLES, seed=number)
            assert boot is not None
            resampled.append(boot.low <= 0 <= boot.high)
    return tuple(float(np.mean(one)) for one in (covering, false, found, resampled))


def win_rates(data: Path) -> Table:
    """AlpacaEval: the share of 805 prompts on which a model's answer is preferred, a tie counting half."""
    worth = {0: 50.0, 1: 0.0, 2: 100.0}
    rows, items = [], {}
    for name, (published, error) in PUBLISHED_WIN_RATES.items():
        lines = list(read(data / "eval_alpacaeval_outputs" / f"annotations_{name}.jsonl.gz"))
        values = [worth[int(line["preference"])] for line in lines]
        items[name] = {line["instruction"]: value for line, value in zip(lines, values, strict=True)}
        rows.append((name, str(len(values)), *spanned(statistics.mean_interval([values])), f"{published:.2f} ± {error:.2f}"))
    first, second = statistics.aligned([items["gpt4"]], [items["alpaca-7b"]])
    difference = statistics.paired_difference(first, second)
    assert difference is not None
    rows.append(("gpt4 minus alpaca-7b", str(first.shape[1]), *spanned(difference.interval), ""))
    columns = ("model", "n", "win rate", "95 %", "published, ± its standard error")
    return Table("AlpacaEval against text-davinci-003, GPT-4's preferences", columns, tuple(rows))


def reviews(data: Path) -> Table:
    """Vicuna's 80 questions: the second model's score against the first's, by question."""
    rows, p_values = [], []
    for path in sorted((data / "eval_vicuna80_table").glob("review__*.jsonl.gz")):
        _, series, name = path.name.removesuffix(".jsonl.gz").split("__")
        pairs = np.array([line["score"] for line in read(path) if min(line["score"]) >= 0])
        first, second = pairs.T
        differences = second - first
        wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
        sign = statistics.mcnemar(differences > 0, differences < 0)
        found = statistics.paired_difference([second], [first])
        assert found is not None
        assert sign is not None
        p_values.append(sign)
        rate = statistics.mean_interval([np.sign(differences) * 50 + 50])
        of_series = PUBLISHED_TOTALS.get(name.removeprefix("review_")) if series.startswith("vicuna-13b_20230322-clean") else None
        published = "" if of_series is None else f"{of_series[0]:g} : {of_series[1]:g}"
        line = (
            f"{series[:10]} {name.removeprefix('review_')[:32]}",
            f"{wins}/{len(pairs) - wins - losses}/{losses}",
            *spanned(rate),
        )
        rows.append((*line, *spanned(found.interval, digits=2), f"{first.sum():g} : {second.sum():g}", published))
    adjusted = statistics.holm(p_values)
    said = [(*row, f"{p:.3f}", word(p)) for row, p in zip(rows, adjusted, strict=True)]
    columns = ("pair", "win/tie/lose", "win rate", "95 %", "Δ score", "95 %", "totals", "published", "p (sign, Holm)", "so")
    return Table("Vicuna's 80 questions, GPT-4's scores: the second model against the first", columns, tuple(said))


def methods() -> Table:
    """PEFT's comparison on MetaMathQA. Which items a method had right is not published: intervals are unpaired, of items alone."""
    pairs = list(itertools.combinations(METAMATH.items(), 2))
    tested = []
    for (_, first), (_, second) in pairs:
        error = math.sqrt((first * (1 - first) + second * (1 - second)) / METAMATH_ITEMS)
        tested.append((first - second, 1.959964 * error, math.erfc(abs(first - second) / error / math.sqrt(2))))
    adjusted = statistics.holm([p for _, _, p in tested])
    rows = [
        (a, b, f"{100 * gap:+.1f}", f"{100 * (gap - half):+.1f} … {100 * (gap + half):+.1f}", f"{p:.3f}", word(p))
        for ((a, _), (b, _)), (gap, half, _), p in zip(pairs, tested, adjusted, strict=True)
    ]
    apart = sum(p < 0.05 for p in adjusted)
    notes = (
        f"{apart} of {len(pairs)} pairs are told apart; about 3.8 points is the least whose own interval leaves out zero",
        "supposes that two methods' answers to one question are unrelated; with each item's answers intervals would be narrower",
        "one training each: what another seed would give is in no interval",
    )
    return Table(
        f"PEFT on MetaMathQA, {METAMATH_ITEMS} items", ("method", "minus", "Δ", "95 %", "p (Holm)", "so"), tuple(rows), notes, 2
    )


def spanned(interval: statistics.Interval | None, digits: int = 1) -> tuple[str, str]:
    assert interval is not None
    return f"{interval.value:.{digits}f}", f"{interval.low:.{digits}f} … {interval.high:.{digits}f}"


def word(p_value: float) -> str:
    return "different" if p_value < 0.05 else "not told apart"


def read(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


if __name__ == "__main__":
    main()
