"""A paper's table beside our own numbers."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from babeltune import papers
from babeltune.config import compose
from babeltune.errors import ConfigError
from babeltune.tables import render
from tests.finished import finish, score

NAME = "heldout/chrf"
LOW, HIGH = "data=zh_alpaca35", "data=zh_alpaca4"
RECIPE = ["experiment=belle", "model=llama_ext_7b"]


@pytest.fixture(autouse=True)
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for each source, so that cells have an identity."""
    for name in ("alpaca35_zh", "alpaca4_zh", "alpaca35_en", "alpaca_vi", "alpaca4_en", "sharegpt", "belle35"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "a.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    (tmp_path / "data" / "sharegpt" / "ShareGPT_V3_unfiltered_cleaned_split.json").write_text("[]")
    monkeypatch.chdir(tmp_path)


def values(mean: float) -> dict[str, float]:
    return {f"i{n}": mean + (n % 5 - 2) for n in range(20)}


def done(outputs: Path, *overrides: str, mean: float, labels: tuple[str, ...] = ("scale=quick",)) -> None:
    finish([*RECIPE, *overrides], [score(NAME, values(mean))], outputs, labels)


def line(outputs: Path, place: int) -> tuple[str, ...]:
    return papers.table("belle-table2", outputs).rows[place]


def test_without_results_the_paper_stands_alone(tmp_path: Path) -> None:
    found = papers.table("belle-table2", tmp_path)
    assert found.columns == ("factor", "base model", "training data", "paper", "ours", "95 % CI", "ours − paper", "n", "seeds")
    assert found.rows[2] == ("Data quality", "LLaMA-EXT", "zh(alpaca-3.5)", "0.642", "—", "", "", "", "")
    assert found.rows[-1][:5] == ("Reference", "ChatGPT", "—", "0.824", "—")
    assert any(note.startswith("missing: 10 of 10 rows.") for note in found.notes)
    for form in ("text", "md", "latex", "csv"):
        assert "0.642" in render(found, form)


def test_every_command_it_prints_composes(tmp_path: Path) -> None:
    notes = papers.table("belle-table2", tmp_path).notes
    commands = [shlex.split(note) for note in notes if note.strip().startswith("python")]
    assert len(commands) == 4, "a sweep for each factor"
    for words in commands:
        assert words[:2] == ["python", "train.py"]
        compose(words[2:])
        compose([*words[2:], "scale=paper"])


def test_paper_and_ours_stand_side_by_side_and_the_order_is_judged(tmp_path: Path) -> None:
    done(tmp_path, LOW, mean=20)
    done(tmp_path, HIGH, mean=30)
    found = papers.table("belle-table2", tmp_path)
    assert found.rows[2][3:] == ("0.642", "20.0 chrf", "19.3 … 20.7", "not comparable", "20", "1")
    assert found.rows[3][3:5] == ("0.693", "30.0 chrf")
    assert any("zh_alpaca4 against zh_alpaca35: paper +0.051, ours +10.0" in n and "the same order here" in n for n in found.notes)
    assert "read with care: scale=quick" in found.notes
    assert any("another measure than the paper's" in note for note in found.notes)
    assert any(note.startswith("missing: 8 of 10 rows.") for note in found.notes)


def test_an_order_the_other_way_round_is_said(tmp_path: Path) -> None:
    done(tmp_path, LOW, mean=30)
    done(tmp_path, HIGH, mean=20)
    assert any("the opposite order here" in note for note in papers.table("belle-table2", tmp_path).notes)


def test_seeds_are_averaged(tmp_path: Path) -> None:
    done(tmp_path, LOW, "seed=0", mean=20)
    done(tmp_path, LOW, "seed=1", mean=24)
    assert line(tmp_path, 2)[4] == "22.0 chrf"
    assert line(tmp_path, 2)[8] == "2"


def test_cells_trained_in_other_ways_are_no_seeds_of_this_one(tmp_path: Path) -> None:
    done(tmp_path, LOW, mean=20)
    done(tmp_path, LOW, "optimizer.learning_rate=0.1", "seed=1", mean=90)
    assert line(tmp_path, 2)[4] == "20.0 chrf"
    assert any("1 more cells" in note for note in papers.table("belle-table2", tmp_path).notes)


def test_a_cell_that_left_the_recipe_is_labelled(tmp_path: Path) -> None:
    done(tmp_path, LOW, "optimizer.learning_rate=0.1", mean=20)
    notes = papers.table("belle-table2", tmp_path).notes
    assert "read with care: optimizer.learning_rate=0.1, which is not the paper's recipe" in notes


def test_the_papers_own_scale_comes_before_another(tmp_path: Path) -> None:
    done(tmp_path, LOW, "seed=0", mean=20)
    done(tmp_path, LOW, "seed=1", mean=20)
    done(tmp_path, LOW, "scale=paper", mean=50, labels=())
    assert line(tmp_path, 2)[4] == "50.0 chrf"


def test_an_unknown_table_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="paper: got 'belle-table3'; expected one of belle-table2; try belle-table2"):
        papers.table("belle-table3", tmp_path)
