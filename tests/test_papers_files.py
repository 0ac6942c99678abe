"""The shipped tables of the papers: each reads, agrees with itself and with the others, and says how its rows are made."""

from __future__ import annotations

import itertools
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from babeltune import cells, papers
from babeltune.config import CONF, compose
from babeltune.errors import ConfigError
from babeltune.papers import recomputing, spec
from babeltune.papers.recipes import overrides
from babeltune.papers.spec import Spec
from babeltune.tables import render
from tests.finished import composed

ROOT = CONF.parent
NAMES = papers.names()
NOWHERE = Path("nowhere")


def read(name: str) -> Spec:
    return spec.read(spec.files()[name])[0]


def column(name: str, heading: str, last_of: int = 1) -> dict[tuple[str, ...], float | str | None]:
    """What a table prints in one column, by the first words of its rows."""
    table = read(name)
    place = table.column(heading)
    return {row.words[:last_of]: row.reported[place] for row in table.rows}


def test_every_table_of_the_five_papers_is_there() -> None:
    wanted = {
        "belle": ("table1", "table2", "table3", "table5", "figure1"),
        "vichat": ("table1", "table2", "table3", "table4", "medical"),
        "flacuna": ("table1", "table2", "table3", "table4", "table5"),
        "medchatzh": ("table1", "table2"),
        "cookbook": (*(f"table{number}" for number in range(2, 10)), "figure1", "figure3", "figure4", "figure5"),
    }
    assert sorted(f"{paper}-{table}" for paper, tables in wanted.items() for table in tables) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_table_prints_in_every_format(name: str) -> None:
    table = papers.table(name, NOWHERE)
    width = len(table.columns)
    assert all(len(row) == width for row in table.rows)
    assert table.title
    assert table.notes[0].endswith(".")
    assert table.notes[1].startswith("paper: ")
    for form in ("text", "md", "latex", "csv", "html"):
        said = render(table, form)
        assert all(mark in said for mark in ("None", "nan")) is False
    assert render(table, "md").count("\n| ") >= len(table.rows)


@pytest.mark.parametrize("name", NAMES)
def test_make_has_a_target_for_each_table(name: str) -> None:
    said = subprocess.run(["make", "-n", name, "FORMAT=html"], cwd=ROOT, capture_output=True, text=True)
    assert f"babeltune paper {name} --format html --outputs outputs" in said.stdout, said.stderr


def sweep_cells(name: str) -> list[list[str]]:
    tree = yaml.safe_load((ROOT / "sweeps" / f"{name}.yaml").read_text(encoding="utf-8"))
    params = tree["hydra"]["sweeper"]["params"]
    axes = [[f"{key}={value.strip()}" for value in str(value).split(",")] for key, value in params.items()]
    return [[f"sweeps={name}", *cell] for cell in itertools.product(*axes)]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_below_a_table_composes_at_both_scales(name: str) -> None:
    table = read(name)
    notes = papers.table(name, NOWHERE).notes
    commands = [shlex.split(note) for note in notes if note.strip().startswith("python")]
    reproducible = any(table.where(row, one) for row in table.rows for one in table.columns if one.kind != "config")
    assert bool(commands) == reproducible
    for words in commands:
        assert words[:2] == ["python", "train.py"]
        assert words[-1] == "paths.data=FOLDER"
        sweep = words[2].removeprefix("sweeps=")
        asked = [[*cell, *words[3:-1]] for cell in sweep_cells(sweep)] if sweep != words[2] else [words[2:-1]]
        for scale in ("quick", "paper"):
            cells.check(compose([*asked[0], f"scale={scale}"]))


@pytest.mark.parametrize("name", [name for name in NAMES if read(name).stage == "tune"])
def test_every_row_with_a_cell_is_made_by_the_sweep_it_names(name: str) -> None:
    table = read(name)
    keys = ("model.name", "data.name", "adapter.kind", "template.name")
    made: dict[str, set[tuple[str, ...]]] = {}
    for row, one in itertools.product(table.rows, table.columns):
        where, sweep = table.where(row, one), row.sweep or table.sweep
        if not where or one.kind == "config":
            continue
        if sweep not in made:
            extra = yaml.safe_load((ROOT / "sweeps" / f"{sweep}.yaml").read_text(encoding="utf-8"))["grid"].get("cells", [])
            lists = [*sweep_cells(sweep), *([f"sweeps={sweep}", *overrides(cell)] for cell in extra)]
            made[sweep] = {told(composed(*cell), keys) for cell in lists}
        assert told(composed(*overrides(where)), keys) in made[sweep], f"{where} is no cell of {sweep}"


def told(config: object, keys: tuple[str, ...]) -> tuple[str, ...]:
    """A cell by what tells it from others; of a base that is not trained by the model alone."""
    found = []
    for key in keys:
        group, _, name = key.partition(".")
        found.append(str(getattr(getattr(config, group), name)))
    return tuple(found[:2]) if found[1] == "none" else tuple(found)


def test_the_figures_that_do_not_agree_with_their_own_cells_are_these_and_no_others() -> None:
    off = {
        (name, table.rows[one.row].words[0], one.column): (one.printed, round(one.value, 2))
        for name in NAMES
        for table in [read(name)]
        for one in recomputing.recompute(table)
        if not one.agrees
    }
    assert off == {
        ("vichat-table1", "GPT4All", "tokens (M)"): (61, 54.75),
        ("vichat-table1", "ChatDoctor", "tokens (M)"): (87, 81.0),
        ("vichat-table3", "Total", "Bloomz"): (44.26, 43.64),
        ("flacuna-table2", "ChatGPT", "average"): (64.5, 64.44),
        ("flacuna-table2", "OpenAssistant", "average Δ"): (1.5, 2.02),
        ("flacuna-table2", "Dolly V2", "average Δ"): (-0.7, -0.22),
        ("flacuna-table4", "Flan-T5", "average"): (76.7, 76.47),
    }


@pytest.mark.parametrize(
    ("name", "agree"),
    [
        ("belle-table5", "22 of 22"),
        ("flacuna-table1", "1 of 1"),
        ("flacuna-table2", "22 of 25"),
        ("flacuna-table4", "11 of 12"),
        ("flacuna-table5", "14 of 14"),
        ("medchatzh-table2", "4 of 4"),
        ("vichat-table4", "3 of 3"),
        ("cookbook-table2", "10 of 10"),
        ("cookbook-table3", "10 of 10"),
        ("cookbook-table6", "13 of 13"),
        ("cookbook-table7", "12 of 12"),
        ("cookbook-table9", "2 of 2"),
    ],
)
def test_a_table_says_how_many_of_its_figures_agree(name: str, agree: str) -> None:
    (said,) = (note for note in papers.table(name, NOWHERE).notes if note.startswith("computed again"))
    assert said.startswith(f"computed again from the paper's own cells: {agree} figures agree")


def test_a_marked_average_shows_its_footnote() -> None:
    said = render(papers.table("vichat-table3", NOWHERE))
    assert "44.26 [1]" in said
    assert "\n[1] printed 44.26; its own cells give 43.64\n" in said
    assert "[1]: 4" not in render(papers.table("vichat-table3", NOWHERE), "csv")
    wrong = render(papers.table("flacuna-table2", NOWHERE))
    assert "1.4 [2]" in wrong
    assert "[2] printed +1.4; the sign is wrong" in wrong


def test_belles_two_tables_agree() -> None:
    assert column("belle-table2", "score", 3) == column("belle-table5", "without others", 3)
    cells_of = {name: [dict(row.cell) for row in read(name).rows] for name in ("belle-table2", "belle-table5")}
    assert cells_of["belle-table2"] == cells_of["belle-table5"]
    assert len({tuple(cell.items()) for cell in cells_of["belle-table2"] if cell}) == 8, "ten rows share eight cells"


def test_belles_categories_are_the_cookbooks_with_math_and_code_in_one() -> None:
    nine, ten = column("belle-figure1", "questions"), column("cookbook-table9", "questions", 2)
    pooled = ten["Belle-eval", "Code"], ten["Belle-eval", "Math"]
    assert nine["others",] == sum(value for value in pooled if isinstance(value, int | float)) == 113
    assert nine["total",] == ten["Belle-eval", "Total"] == 1000


def test_the_cookbooks_tables_agree_where_they_show_the_same_cell() -> None:
    belle, mmcu = column("cookbook-table6", "average"), column("cookbook-table7", "average")
    for heading, by_data, name in (("Belle-eval", belle, "cookbook-table2"), ("MMCU", mmcu, "cookbook-table3")):
        untuned, tuned = by_data["none",], by_data["Alpaca-GPT4",]
        assert column(name, "average")["Bloom",] == untuned
        assert column("cookbook-table4", heading)["LoRA",] == tuned
        assert column("cookbook-table8", heading)["Alpaca-GPT4",] == tuned
        assert column("cookbook-figure1", heading)["bloom",] == tuned
        assert column("cookbook-figure4", heading, 2)["Bloom", "en"] == tuned
        assert column("cookbook-figure5", heading)["w/o human-value",] == tuned
        assert column("cookbook-figure3", heading)["llama",] == column("cookbook-figure1", heading)["llama",]


def test_the_cookbooks_gains_are_differences_of_its_tables_but_for_one() -> None:
    off = []
    for heading, name, within in (("Belle-eval", "cookbook-table2", 0.06), ("MMCU", "cookbook-table3", 0.011)):
        before = {words[0].lower(): value for words, value in column(name, "average").items()}
        tuned, gain = column("cookbook-figure1", heading), column("cookbook-figure1", f"{heading} Δ")
        for (base,), value in tuned.items():
            found = (value, before[base], gain[base,])
            a, b, c = (one for one in found if isinstance(one, int | float))
            off += [(heading, base)] if abs(a - b - c) > within else []
    assert off == [("MMCU", "bloomz-mt")]
    assert any("gives −13.71" in note for note in papers.table("cookbook-figure1", NOWHERE).notes)


def test_flacunas_claims_are_in_its_tables() -> None:
    scores = {words[0]: value for words, value in column("flacuna-table2", "average").items()}
    assert scores["FLACUNA"] == 43.8
    assert scores["VICUNA"] == 38.7
    harmless = column("flacuna-table4", "average")
    gain = [harmless[one,] for one in ("FLACUNA", "VICUNA")]
    assert gain == [74.5, 63.7]


def test_parameters_of_the_cookbook_are_those_its_note_counts() -> None:
    printed = column("cookbook-table4", "parameters (Mi)")
    exact = [5898600, 15728640, 81920, 1151232, 32309376, 7864320, 15728640, 15728640, 62914560, 125829120, 125829120]
    (note,) = (note for note in read("cookbook-table4").notes if "2^20" in note)
    assert all(f"{count:,}" in note for count in exact)
    for count, value in zip(exact, printed.values(), strict=True):
        assert isinstance(value, int | float)
        assert abs(count / 2**20 - value) <= 0.05


GOOD = """\
# A table of mine.
title: t
measure: m
words: [model]
columns: [{name: score, score: mine/score}]
rows: [{words: [a], reported: [1.5]}]
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("score: mine/score", "scoer: x"), "columns[0]: got 'scoer'; expected some of name, score, .*; try score"),
        (("measure: m\n", ""), "conf/paper/mine.yaml: got no measure; expected measure; try measure: ..."),
        (("reported: [1.5]", "reported: [1.5, 2]"), r"rows[0].reported: got 2 values; expected 1: score; try null for one"),
        (("words: [a]", "words: [a, b]"), r"rows[0].words: got 2 values; expected 1: model; "),
        (("score: mine/score", "score: a/b, ledger: found"), r"columns[0]: got several of ours; expected one of score, ledger"),
        (("score: mine/score", "ledger: rows"), r"columns[0].ledger: got 'rows'; expected one of found, usable"),
        (
            ("score: mine/score", "score: a/b, times: 1e-3"),
            r"columns[0].times: got '1e-3'; expected a value of type float; try 0.001",
        ),
        (("title: t", "title: t\nmain: [scor]"), "mine.yaml: main: got 'scor'; expected one of score; try score"),
        (("title: t", "title: t\nchecks: [{kind: sum, of: [score]}]"), r"checks[0].kind: got 'sum'; expected one of row_mean"),
        (("title: t", "title: [t"), "conf/paper/mine.yaml: got while parsing .*; expected YAML"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_a_sentence(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    assert spec.read(path)[1] == "A table of mine."
    path.write_text(GOOD.replace(*change))
    with pytest.raises(ConfigError, match=message.replace("[", r"\[").replace("]", r"\]")):
        spec.read(path)


def test_the_table_in_the_docs_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8").split("## Adding a table")[1].splitlines()
    block = itertools.takewhile(
        lambda one: not one or one.startswith("    "), itertools.dropwhile(lambda one: "    #" not in one, lines)
    )
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "someone.yaml").write_text("\n".join(one[4:] for one in block), encoding="utf-8")
    monkeypatch.setattr(spec, "CONF", tmp_path)
    assert papers.table("someone", NOWHERE).rows[0][:4] == ("LLaMA", "zh(alpaca-4)", "10.0", "–")


def test_a_table_is_added_by_adding_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "mine.yaml").write_text(GOOD)
    monkeypatch.setattr(spec, "CONF", tmp_path)
    assert papers.names() == ["mine"]
    assert papers.table("mine", NOWHERE).rows == (("a", "1.5", "", "", "", "", ""),)
