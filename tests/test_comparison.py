"""From finished cells on disk to the table that compares them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from babeltune import comparison
from babeltune.comparison import row_labels, table
from babeltune.config import compose, dump
from babeltune.errors import ConfigError, EvalError
from babeltune.statistics import Difference, Interval, verdict
from babeltune.tables import render
from tests.finished import finish, note, score

NAME = "toy/exact_match"
ITEMS = 40


def right(share: float, shift: int = 0) -> dict[str, float]:
    """Items of which this share is right; `shift` moves which."""
    count = round(share * ITEMS)
    return {f"i{n:02}": 100.0 * ((n + shift) % ITEMS < count) for n in range(ITEMS)}


def labels(*cells: list[str]) -> list[str]:
    return row_labels([dump(compose(cell)) for cell in cells])


def grid(outputs: Path, **shares: tuple[float, ...]) -> Path:
    """A grid of toy mixes whose cells are finished with these shares right, one for each seed."""
    cells = []
    for mix, values in shares.items():
        for seed, share in enumerate(values):
            cell = [f"data={mix}", f"seed={seed}", "grid.name=g", "grid.title='Which data?'"]
            cells.append(cell)
            if share >= 0:
                finish(cell, [score(NAME, right(share, seed))], outputs)
    return note(cells, outputs)


def test_the_table_of_a_fixed_grid(tmp_path: Path) -> None:
    manifest = grid(tmp_path, toy_zh=(0.9, 0.85), toy_en=(0.2, 0.25), toy_vi=(0.85, 0.9), toy_all=(-1,))
    found = table(manifest)
    assert found.columns == ("mix", "exact_match", "Δ", "95 % CI of Δ", "so", "n", "seeds")
    assert [(row[0], row[1], row[2], row[4], row[5], row[6]) for row in found.rows] == [
        ("toy_zh", "87.5", "baseline", "", "40", "2"),
        ("toy_en", "22.5", "−65.0", "worse", "40", "2"),
        ("toy_vi", "87.5", "0.0", "not told apart", "40", "2"),
        ("toy_all", "—", "", "", "0", "0"),
    ]
    low, high = found.rows[1][3].split(" … ")
    assert float(low.replace("−", "-")) < -65 < float(high.replace("−", "-")) < 0
    assert found.notes[0] == "toy/exact_match: s1"
    assert "seeds alone move a difference by up to" in found.notes[1]
    for form in ("text", "md", "latex", "csv"):
        assert render(found, form)


def test_text_md_latex_and_csv_of_one_grid_letter_by_letter(tmp_path: Path) -> None:
    found = table(grid(tmp_path, toy_zh=(0.5,), toy_en=(0.5,)))
    assert (
        render(found)
        == """\
Which data?
──────────────────────────────────────────────────────────────────────
mix     exact_match         Δ  95 % CI of Δ              so   n  seeds
──────────────────────────────────────────────────────────────────────
toy_zh         50.0  baseline                                40      1
toy_en         50.0       0.0     0.0 … 0.0  not told apart  40      1
──────────────────────────────────────────────────────────────────────
toy/exact_match: s1
one seed each: intervals cover the choice of items, not that of seeds; add seed=0,1,2
right where toy_zh is wrong : the reverse, by one run each (McNemar): toy_en 0 : 0, p = 1.000"""
    )
    assert render(found, "csv").splitlines()[2] == "toy_en,50.0,0.0,0.0 … 0.0,not told apart,40,1"


def test_rows_measured_in_different_ways_are_not_tabulated(tmp_path: Path) -> None:
    manifest = grid(tmp_path, toy_zh=(0.5,), toy_en=(-1,))
    finish(["data=toy_en", "seed=0"], [score(NAME, right(0.5), signature="s2")], tmp_path)
    with pytest.raises(EvalError, match="table: got cells measured in 2 different ways; expected one suite"):
        table(manifest)


def test_a_folder_that_the_grid_does_not_name_is_not_tabulated(tmp_path: Path) -> None:
    manifest = grid(tmp_path, toy_zh=(0.5,), toy_en=(0.5,))
    finish(["data=toy_en", "seed=7"], [score(NAME, right(1.0))], tmp_path)
    finish(["data=toy_vi"], [score(NAME, right(1.0))], tmp_path)
    assert [row[0] for row in table(manifest).rows] == ["toy_zh", "toy_en"]
    assert [row[6] for row in table(manifest).rows] == ["1", "1"]


def test_the_baseline_is_the_first_row_or_the_one_that_is_named(tmp_path: Path) -> None:
    cells = [["data=toy_zh", "grid.name=g", "grid.baseline=toy_en"], ["data=toy_en", "grid.name=g", "grid.baseline=toy_en"]]
    for cell in cells:
        finish(cell, [score(NAME, right(0.5))], tmp_path)
    assert [row[2] for row in table(note(cells, tmp_path)).rows] == ["0.0", "baseline"]


def test_an_unknown_baseline_is_refused_before_and_after(tmp_path: Path) -> None:
    configs = [compose(["data=toy_zh", "grid.baseline=toy_e"]), compose(["data=toy_en", "grid.baseline=toy_e"])]
    assert list(comparison.check(configs)) == [
        "grid.baseline: got 'toy_e'; expected a row of the table (toy_zh, toy_en); try toy_en"
    ]
    manifest = grid(tmp_path, toy_zh=(0.5,), toy_en=(0.5,))
    manifest.write_text(manifest.read_text().replace('"baseline": null', '"baseline": "x"'))
    with pytest.raises(ConfigError, match="the baseline of g: got 'x'; expected one of toy_zh, toy_en"):
        table(manifest)


def test_a_baseline_without_a_result_is_said_to_be_missing(tmp_path: Path) -> None:
    cells = [["data=toy_zh", "grid.name=g", "grid.baseline=toy_zh"], ["data=toy_en", "grid.name=g", "grid.baseline=toy_zh"]]
    finish(cells[1], [score(NAME, right(0.5))], tmp_path)
    assert "the baseline toy_zh has no result yet; toy_en stands in its place" in table(note(cells, tmp_path)).notes


def test_a_grid_is_judged_in_one_way_and_written_to_one_folder() -> None:
    said = list(comparison.check([compose(["data=toy_zh"]), compose(["data=zh_alpaca4", "paths.outputs=b"])]))
    assert said == [
        "evaluation: got toy, heldout in one grid; expected one suite for all cells; try evaluation=toy for the whole grid",
        "paths.outputs: got outputs, b; expected one folder for the whole grid; try paths.outputs=outputs",
    ]


def test_rows_are_named_by_what_sets_them_apart() -> None:
    assert labels(["data=toy_zh"], ["data=toy_en"]) == ["toy_zh", "toy_en"]
    assert labels(["data=toy_zh", "adapter.rank=4"], ["data=toy_zh", "adapter.rank=16"]) == ["adapter.rank=4", "adapter.rank=16"]
    assert labels(["data=toy_zh", "adapter=none"], ["data=toy_zh"]) == ["adapter=none", "adapter=lora"]
    assert labels(
        ["data=toy_zh", "model=tiny", "optimizer.learning_rate=0.001"],
        ["data=toy_zh", "model=llama_7b", "adapter=none", "optimizer.learning_rate=0.01"],
    ) == ["tiny  adapter=lora  optimizer.learning_rate=0.001", "llama_7b  adapter=none  optimizer.learning_rate=0.01"]


def test_cells_that_differ_only_in_their_seed_are_one_row_and_no_others_are() -> None:
    assert len(set(labels(["seed=0"], ["seed=1", "trainer=ddp_cpu", "logger=none", "paths.outputs=x"]))) == 1
    assert len(set(labels(["model=tiny"], ["model=tiny", "model.from_cell='experiment=tiny seed=1'"]))) == 2
    assert len(set(labels(["data=toy_zh"], ["data=toy_zh", "+data.quota.zh=5"]))) == 2
    assert len(set(labels(["data=toy_zh"], ["data=toy_zh", "data.sources.toy_zh.toy.seed=1"]))) == 2


def test_lower_is_better_where_the_metric_says_so(tmp_path: Path) -> None:
    cells = [["data=toy_zh", "grid.name=g"], ["data=toy_en", "grid.name=g"]]
    for cell, base in zip(cells, (1.0, 2.0), strict=True):
        items = {f"i{n}": base + n % 7 / 100 for n in range(ITEMS)}
        finish(cell, [score("toy/loss", items, higher_is_better=False)], tmp_path)
    found = table(note(cells, tmp_path))
    assert found.rows[1][1:5] == ("2.029", "+1.000", "+1.000 … +1.000", "worse")
    assert found.notes[0].endswith("lower is better")


def test_a_difference_is_named_only_when_it_survives_the_others() -> None:
    difference = Difference(Interval(5.0, 1.0, 9.0, 10, 1, ("items",)), 0.03, 9)
    assert verdict(difference, 0.06) == "not told apart"
    assert verdict(difference, 0.03) == "better"
    assert verdict(difference, 0.03, higher_is_better=False) == "worse"


def test_many_comparisons_ask_for_more(tmp_path: Path) -> None:
    """One difference with p between 0.01 and 0.05 is called alone, and not among five."""
    base = {f"i{n}": 50.0 + n for n in range(ITEMS)}
    near = {item: value + 1 + 2.8 * (-1) ** n for n, (item, value) in enumerate(base.items())}
    like = {item: value + (-1) ** n for n, (item, value) in enumerate(base.items())}
    mixes = ["toy_zh", "toy_en", "toy_vi", "toy_all", "toy_zh_noisy", "toy_en_noisy"]
    for mix in mixes:
        finish([f"data={mix}"], [score(NAME, {"toy_zh": base, "toy_en": near}.get(mix, like))], tmp_path)
    alone = table(note([[f"data={mix}", "grid.name=two"] for mix in mixes[:2]], tmp_path))
    among = table(note([[f"data={mix}", "grid.name=six"] for mix in mixes], tmp_path))
    assert (alone.rows[1][4], among.rows[1][4]) == ("better", "not told apart")


def test_each_language_and_loss_has_a_column(tmp_path: Path) -> None:
    scores = [score(NAME, right(0.5)), score(f"{NAME}_vi", right(0.25)), score(f"{NAME}_zh", right(0.75))]
    scores += [score(f"toy/loss{part}", {"i": 1.2345}, higher_is_better=False) for part in ("", "_vi", "_zh")]
    finish(["data=toy_zh", "grid.name=g"], scores, tmp_path)
    found = table(note([["data=toy_zh", "grid.name=g"]], tmp_path))
    assert found.columns[7:] == ("exact_match_vi", "exact_match_zh", "loss_vi", "loss_zh")
    assert found.rows[0][7:] == ("25.0", "75.0", "1.234", "1.234")


def test_grids_of_the_same_mixes_do_not_overwrite_each_other(tmp_path: Path) -> None:
    first = note([["data=toy_zh"], ["data=toy_en"]], tmp_path)
    second = note([["data=toy_zh", "adapter.rank=4"], ["data=toy_en", "adapter.rank=4"]], tmp_path)
    assert first != second
    assert re.fullmatch(r"toy_zh-toy_en-[0-9a-f]{4}", first.stem)
    assert note([["data=toy_zh"], ["data=toy_en"]], tmp_path) == first


def test_the_untuned_base_is_one_cell_however_many_seeds_are_asked_for(tmp_path: Path) -> None:
    cells = [["data=none", f"seed={seed}", "grid.name=g"] for seed in (0, 1)]
    finish(cells[0], [score(NAME, right(0.5))], tmp_path)
    assert table(note(cells, tmp_path)).rows[0][6] == "1"


def test_a_grid_without_a_finished_cell_says_so(tmp_path: Path) -> None:
    manifest = grid(tmp_path, toy_zh=(-1,), toy_en=(-1,))
    assert comparison.summary(manifest, []) == "no cell has finished"
    assert table(manifest).rows == (("toy_zh", "—"), ("toy_en", "—"))


def test_the_same_items_may_be_asked_in_several_ways_in_one_table(tmp_path: Path) -> None:
    plain, otherwise = ["data=toy_zh"], ["data=toy_zh", "evaluation.prompt='{question} 先思考'"]
    assert labels(plain, otherwise) == ["otherwise", "evaluation.prompt={question} 先思考"]
    assert labels(plain, ["data=toy_en"], ["data=toy_en", "evaluation.prompt='{question}?'"]) == [
        "toy_zh",
        "toy_en",
        "toy_en  evaluation.prompt={question}?",
    ]
    assert list(comparison.check([compose(plain), compose(otherwise)])) == []
    folders = [finish(cell, [score(NAME, right(share))], tmp_path) for cell, share in ((plain, 0.5), (otherwise, 0.75))]
    assert folders[0] == folders[1]
    assert [row[1] for row in table(note([plain, otherwise], tmp_path)).rows] == ["50.0", "75.0"]
