"""A paper's table beside our own numbers: which cells stand for a row, and what is said of them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from babeltune import papers
from babeltune.errors import ConfigError
from babeltune.papers.recipes import Recipes
from babeltune.records import Score
from babeltune.results import read_result, write_json
from babeltune.tables import render
from tests.finished import score
from tests.papers_data import classes, done, named, values

CHRF = "heldout/chrf"
SCORE = "belle_1k/score_without_others"
LOW, HIGH = "data=zh_alpaca35", "data=zh_alpaca4"
BELLE = ["experiment=belle", "model=llama_ext_7b"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def belle(outputs: Path, *overrides: str, mean: float, name: str = SCORE, labels: tuple[str, ...] = ("scale=quick",)) -> Path:
    return done(outputs, [*BELLE, *overrides], [named(name, mean)], labels=labels)


def line(outputs: Path, place: int, table: str = "belle-table2") -> dict[str, str]:
    found = papers.table(table, outputs)
    over = found.spans or ("",) * len(found.columns)
    names = [f"{a}: {b}" if a else b for a, b in zip(over, found.columns, strict=True)]
    return dict(zip(names, found.rows[place], strict=True))


def notes(outputs: Path, table: str = "belle-table2") -> tuple[str, ...]:
    return papers.table(table, outputs).notes


def test_without_results_the_paper_stands_alone(tmp_path: Path) -> None:
    found = papers.table("belle-table2", tmp_path)
    figures = ("paper", "ours", "difference", "95 % CI", "n", "seeds")
    assert found.columns == ("factor", "base model", "training data", *figures)
    assert found.rows[2] == ("Data quality", "LLaMA-EXT", "zh(alpaca-3.5)", "0.642", "–", "", "", "", "")
    assert found.rows[-1] == ("Reference", "ChatGPT", "", "0.824", "", "", "", "", "")
    assert any(note.startswith("missing: 10 of 10 rows.") for note in found.notes)


def test_paper_and_ours_stand_side_by_side_in_the_papers_unit(tmp_path: Path) -> None:
    belle(tmp_path, LOW, mean=60)
    belle(tmp_path, HIGH, mean=70)
    found = line(tmp_path, 2)
    assert (found["paper"], found["ours"], found["difference"], found["n"], found["seeds"]) == (
        "0.642",
        "0.600",
        "−0.042",
        "20",
        "1",
    )
    assert found["95 % CI"] == "0.593 … 0.607"
    assert line(tmp_path, 3)["difference"] == "+0.007"


def test_the_order_of_two_rows_is_judged(tmp_path: Path) -> None:
    belle(tmp_path, LOW, mean=60)
    belle(tmp_path, HIGH, mean=70)
    said = notes(tmp_path)
    assert any(
        note.startswith("zh(alpaca-4) against zh(alpaca-3.5): paper +0.051, ours +0.100 (") and note.endswith("the same order here")
        for note in said
    )
    assert "one seed each: intervals cover the choice of items, not that of seeds; add seed=0,1,2" in said


def test_an_order_the_other_way_round_is_said(tmp_path: Path) -> None:
    belle(tmp_path, LOW, mean=70)
    belle(tmp_path, HIGH, mean=60)
    assert any(note.endswith("the opposite order here") for note in notes(tmp_path))


def test_a_difference_is_held_against_what_seeds_alone_do(tmp_path: Path) -> None:
    for seed, shift in ((0, 0), (1, 4)):
        belle(tmp_path, LOW, f"seed={seed}", mean=60 + shift)
        belle(tmp_path, HIGH, f"seed={seed}", mean=61 - shift)
    said = notes(tmp_path)
    assert any("not told apart here, no more than seeds alone make" in note for note in said)
    assert any(note.startswith("seeds alone move a difference by up to 0.1") for note in said)


def test_seeds_are_averaged(tmp_path: Path) -> None:
    belle(tmp_path, LOW, "seed=0", mean=60)
    belle(tmp_path, LOW, "seed=1", mean=64)
    assert (line(tmp_path, 2)["ours"], line(tmp_path, 2)["seeds"]) == ("0.620", "2")


def test_another_suites_score_has_a_column_of_its_own(tmp_path: Path) -> None:
    belle(tmp_path, LOW, mean=20, name=CHRF)
    belle(tmp_path, HIGH, mean=30, name=CHRF)
    found = line(tmp_path, 2)
    assert found["ours"] == "–"
    assert found["heldout/chrf (another measure)"] == "20.0 (19.3 … 20.7; n 20, seeds 1)"
    assert line(tmp_path, 4)["heldout/chrf (another measure)"] == ""
    said = notes(tmp_path)
    assert "heldout/chrf: another measure than the paper's; orderings may be compared, numbers may not" in said
    assert any(note.startswith("heldout/chrf: zh(alpaca-4) against zh(alpaca-3.5): paper +0.051, ours +10.0") for note in said)
    assert "read with care: scale=quick" in said
    assert any(note.startswith("missing: 10 of 10 rows.") for note in said)


def test_a_cell_may_be_judged_by_several_suites(tmp_path: Path) -> None:
    done(tmp_path, [*BELLE, LOW], [named(SCORE, 60)])
    done(tmp_path, [*BELLE, LOW, "evaluation=toy_zh"], [named("toy_zh/exact_match", 3)])
    found = papers.table("belle-table2", tmp_path)
    assert line(tmp_path, 2)["ours"] == "0.600", "though toy_zh was asked last"
    assert not any("another measure" in column for column in found.columns), "the paper's own measure is there"


def test_a_score_made_in_two_ways_is_taken_from_neither(tmp_path: Path) -> None:
    done(tmp_path, [*BELLE, LOW], [named(SCORE, 60, "judge: a")])
    done(tmp_path, [*BELLE, LOW, "decoding.max_new_tokens=20"], [named(SCORE, 70, "judge: b")])
    assert (line(tmp_path, 2)["ours"], line(tmp_path, 2)["difference"], line(tmp_path, 2)["n"]) == ("2 ways", "", "")
    words = "Data quality, LLaMA-EXT, zh(alpaca-3.5), score: judged in 2 ways, none is taken: "
    (said,) = (note for note in notes(tmp_path) if note.startswith(words))
    assert sorted(said.removeprefix(words).split("; ")) == ["0.600 by judge: a", "0.700 by judge: b"]


def test_cells_trained_in_other_ways_are_no_seeds_of_this_one(tmp_path: Path) -> None:
    belle(tmp_path, LOW, mean=60)
    belle(tmp_path, LOW, "optimizer.learning_rate=0.1", "seed=1", mean=90)
    assert line(tmp_path, 2)["ours"] == "0.600"
    assert any("up to 1 more cells a row" in note for note in notes(tmp_path))


def test_a_cell_of_another_template_is_no_seed_of_this_one(tmp_path: Path) -> None:
    belle(tmp_path, LOW, mean=60)
    belle(tmp_path, LOW, "template=alpaca", "seed=1", mean=90)
    assert (line(tmp_path, 2)["ours"], line(tmp_path, 2)["seeds"]) == ("0.600", "1")


def test_a_cell_that_left_the_recipe_is_labelled(tmp_path: Path) -> None:
    belle(tmp_path, LOW, "optimizer.learning_rate=0.1", mean=60)
    assert "read with care: optimizer.learning_rate=0.1, which is not the paper's recipe" in notes(tmp_path)


def test_a_cell_of_another_adapter_is_another_cell(tmp_path: Path) -> None:
    belle(tmp_path, LOW, "adapter=lora", mean=60)
    assert line(tmp_path, 2)["ours"] == "–"


def test_the_papers_own_scale_comes_before_another(tmp_path: Path) -> None:
    belle(tmp_path, LOW, "seed=0", mean=20)
    belle(tmp_path, LOW, "seed=1", mean=20)
    belle(tmp_path, LOW, "scale=paper", mean=50, labels=())
    assert line(tmp_path, 2)["ours"] == "0.500"


def test_ours_leads_to_its_folder_and_its_run(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    first = done(outputs, [*BELLE, LOW], [named(SCORE, 60)], url="https://wandb.ai/me/babeltune/runs/1")
    second = done(outputs, [*BELLE, LOW, "seed=1"], [named(SCORE, 60)])
    said = render(papers.table("belle-table2", outputs), "md")
    assert f"[0.600](outputs/{first.name}) [W&B](https://wandb.ai/me/babeltune/runs/1) [seed 1](outputs/{second.name})" in said
    beside = render(papers.table("belle-table2", outputs, near=outputs), "html")
    assert f'<a href="{first.name}">0.600</a> <a href="https://wandb.ai/me/babeltune/runs/1">W&amp;B</a>' in beside
    assert f"ours: {first.name}, {second.name} in {outputs}" in render(papers.table("belle-table2", outputs))


def macro(means: dict[str, float]) -> list[Score]:
    """Two classes of unlike size, and their plain mean with the items of both."""
    parts = [*classes("hhh/accuracy", means), score("hhh/accuracy_other", {f"o{n}": 90.0 for n in range(40)})]
    items = {item: value for part in parts for item, value in part.items.items()}
    mean = sum(part.value or 0 for part in parts) / len(parts)
    return [Score("hhh/accuracy", mean, len(items), 0, "s1", True, items), *parts]


def test_a_mean_of_classes_keeps_its_value_and_gets_its_interval_from_theirs(tmp_path: Path) -> None:
    done(tmp_path, ["experiment=flacuna", "data=none"], macro({"harmless": 60, "helpful": 70, "honest": 80}))
    found = line(tmp_path, 10, "flacuna-table4")
    assert (found["harmlessness: ours"], found["other: ours"], found["average: ours"]) == ("60.0", "90.0", "75.0")
    low, high = (float(end) for end in found["average: 95 % CI"].split(" … "))
    assert (low + high) / 2 == pytest.approx(75, abs=0.1)
    assert found["harmlessness: ±"] != "", "columns that are no main ones have half their interval"


def test_a_mean_that_nothing_explains_has_no_interval(tmp_path: Path) -> None:
    whole = macro({"harmless": 60, "helpful": 70, "honest": 80})[0]
    done(tmp_path, ["experiment=flacuna", "data=none"], [whole])
    found = line(tmp_path, 10, "flacuna-table4")
    assert (found["average: ours"], found["average: 95 % CI"]) == ("75.0", "")


def test_a_mean_that_the_suite_has_not_is_made_of_its_classes(tmp_path: Path) -> None:
    names = (
        "code",
        "open_qa",
        "brainstorming",
        "classification",
        "math",
        "generation",
        "summarization",
        "rewrite",
        "closed_qa",
        "extract",
    )
    parts = classes("belle_1k/score", {name: 10.0 * place for place, name in enumerate(names)})
    done(tmp_path, ["experiment=cookbook"], parts)
    found = line(tmp_path, 1, "cookbook-table6")
    assert (found["average: ours"], found["average: n"], found["code: ours"]) == ("45.0", "60", "0.0")
    assert found["average: 95 % CI"] != ""


def test_scores_of_several_suites_meet_in_one_row(tmp_path: Path) -> None:
    suites = ("mmlu/accuracy", "bbh/accuracy", "drop/accuracy", "crass/accuracy", "humaneval/pass_at_1")
    for place, name in enumerate(suites):
        words = ["experiment=flacuna", "data=none", f"evaluation.max_items={place + 1}"]
        done(tmp_path, words, [named(name, 10.0 * (place + 1))])
    found = line(tmp_path, 13, "flacuna-table2")
    assert [found[f"{name}: ours"] for name in ("MMLU", "BBH", "DROP", "CRASS", "HumanEval")] == [
        "10.0",
        "20.0",
        "30.0",
        "40.0",
        "50.0",
    ]
    assert (found["average: ours"], found["average: difference"]) == ("30.0", "−8.7")


def test_without_one_of_its_suites_a_mean_over_suites_is_not_made(tmp_path: Path) -> None:
    done(tmp_path, ["experiment=flacuna", "data=none"], [named("mmlu/accuracy", 10)])
    assert line(tmp_path, 13, "flacuna-table2")["average: ours"] == ""


def test_a_table_may_have_models_as_columns(tmp_path: Path) -> None:
    for words, mean in ((["data=none"], 40.0), ([], 70.0)):
        done(tmp_path, ["experiment=bloomz_chat", *words], [named("vicuna80_vi/total", mean), *classes("vicuna80_vi/", {})])
    found = line(tmp_path, 9, "vichat-table3")
    assert (found["Bloomz: ours"], found["Bloomz-Chat: ours"], found["Bloomz-Chat: difference"]) == ("40.00", "70.00", "−3.55")
    said = notes(tmp_path, "vichat-table3")
    assert any(note.startswith("Total, Bloomz-Chat against Total, Bloomz: paper +29.29, ours +30.00") for note in said)


def test_a_model_in_a_column_that_was_judged_otherwise_is_in_a_note(tmp_path: Path) -> None:
    done(tmp_path, ["experiment=bloomz_chat"], [named(CHRF, 20)])
    said = notes(tmp_path, "vichat-table3")
    assert "Bloomz-Chat: heldout/chrf 20.0 (19.3 … 20.7; n 20, seeds 1), another measure than the paper's" in said


def test_one_cell_asked_in_two_ways_stands_in_two_rows(tmp_path: Path) -> None:
    words = ["experiment=cookbook", "data=zh_alpaca4_cot"]
    done(tmp_path, words, [named("belle_1k/score_code", 50)])
    done(tmp_path, [*words, "evaluation.prompt='{question}先思考，再决定'"], [named("belle_1k/score_code", 60)])
    assert [line(tmp_path, place, "cookbook-table8")["code: ours"] for place in (0, 1, 2)] == ["–", "50.0", "60.0"]


def test_a_base_that_is_not_trained_is_the_same_under_every_recipe(tmp_path: Path) -> None:
    words = ["experiment=cookbook", "model=bloom_7b1", "data=none", "adapter=none", "optimizer.learning_rate=0.1"]
    done(tmp_path, words, [named("mmcu/accuracy", 30)])
    assert line(tmp_path, 0, "cookbook-table7")["average: ours"] == "30.00"
    assert not any("which is not the paper's recipe" in note for note in notes(tmp_path, "cookbook-table7"))


def test_methods_of_one_kind_are_told_apart_by_their_size(tmp_path: Path) -> None:
    for adapter, mean in (("sadapter_p", 50.0), ("sadapter_p_256", 60.0)):
        known = {"training": {"parameters": {"trainable": 7864320 if mean == 50 else 62914560}}}
        done(tmp_path, ["experiment=cookbook", f"adapter={adapter}"], [named("mmcu/accuracy", mean)], **known)
    found = [line(tmp_path, place, "cookbook-table4") for place in (5, 8)]
    assert [one["MMCU: ours"] for one in found] == ["50.00", "60.00"]
    assert [one["parameters (Mi): ours"] for one in found] == ["7.50", "60.00"]


def test_a_ledger_stands_beside_the_papers_counts(tmp_path: Path) -> None:
    rows = [
        {"source": "alpaca_vi", "found": 51092, "usable": 50000, "taken": 1000, "tokens": 300_000},
        {"source": "gpt4all_vi", "found": 1000, "usable": 1000, "taken": 500, "tokens": 400_000},
        {"source": "gpt4all_vi", "found": 2000, "usable": 2000, "taken": 1500, "tokens": 400_000},
    ]
    done(tmp_path, ["experiment=bloomz_chat", "stage=prepare"], [], ledger={"rows": rows})
    found = [line(tmp_path, place, "vichat-table1") for place in (0, 1, 2)]
    assert [one["samples (k): ours"] for one in found] == ["51", "3", "–"]
    assert [one["tokens a sample: ours"] for one in found[:2]] == ["300", "400"]
    assert found[0]["tokens a sample: difference"] == "−50"
    assert any(note.startswith("missing: 1 of 3 rows.") for note in notes(tmp_path, "vichat-table1"))


def test_a_recipes_settings_stand_beside_the_papers() -> None:
    found = papers.table("belle-table3", Path("nowhere"))
    assert [row[1:] for row in found.rows] == [(row[1], row[1]) for row in found.rows]


def test_an_evaluation_that_is_damaged_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = belle(tmp_path, LOW, mean=60)
    (path,) = folder.glob("evaluations/*/asked.json")
    path.write_text("{")
    assert line(tmp_path, 2)["ours"] == "–"
    assert "left out:" in caplog.text


def test_an_unknown_table_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"paper: got 'belle-table4'; expected one of belle-figure1, .*, all; try belle-table"):
        papers.table("belle-table4", tmp_path)


def test_all_of_them_are_one_document(tmp_path: Path) -> None:
    belle(tmp_path / "outputs", LOW, mean=60)
    words = ["paper", "all", "--format", "md", "--outputs", "outputs", "--to", "outputs/tables.md"]
    found = subprocess.run([sys.executable, "-m", "babeltune", *words], cwd=tmp_path, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "written: outputs/tables.md\n"), found.stderr
    said = (tmp_path / "outputs" / "tables.md").read_text(encoding="utf-8")
    assert said.count("\n\n**") + 1 == len(papers.names())
    assert "[0.600](zh_alpaca35-llama_ext_7b-none-s0-" in said, "links lead from where the document is"


def test_a_table_is_printed_without_torch_and_at_once(tmp_path: Path) -> None:
    for word in (LOW, HIGH):
        belle(tmp_path, word, mean=60)
    code = "import sys, babeltune.__main__ as m; sys.argv = ['babeltune', 'paper', 'belle-table2', '--outputs', '.']; m.main(); "
    began = time.process_time_ns(), time.monotonic()
    found = subprocess.run([sys.executable, "-c", f"{code} assert 'torch' not in sys.modules"], cwd=tmp_path, capture_output=True)
    assert found.returncode == 0, found.stderr
    assert time.monotonic() - began[1] < 20, "a machine under load; alone it takes 0.6 s"


def test_a_kept_recipe_counts_until_conf_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Recipes(tmp_path / ".cache" / "recipes").of({"data": "toy_zh"}, "quick")
    (kept,) = (tmp_path / ".cache" / "recipes").iterdir()
    write_json(kept, first | {"seed": 7})
    assert Recipes(kept.parent).of({"data": "toy_zh"}, "quick")["seed"] == 7
    kept.write_text("{")
    assert Recipes(kept.parent).of({"data": "toy_zh"}, "quick") == first, "half a file is composed again"
    write_json(kept, first | {"seed": 7})
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "new.yaml").touch()
    monkeypatch.setattr("babeltune.papers.recipes.CONF", tmp_path / "conf")
    assert Recipes(kept.parent).of({"data": "toy_zh"}, "quick")["seed"] == 0


def test_what_a_table_reads_is_what_a_cell_writes(tmp_path: Path) -> None:
    folder = belle(tmp_path, LOW, mean=60)
    result = read_result(folder)
    assert result is not None
    write_json(folder / "result.json", json.loads((folder / "result.json").read_text()) | {"scores": {}})
    assert line(tmp_path, 2)["ours"] == "0.600", "scores are read from the evaluations, not from the last one asked"
    assert values(60) == named(SCORE, 60).items
