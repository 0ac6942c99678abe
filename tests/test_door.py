"""What a user types, and what the door answers. Nothing here runs a cell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from babeltune import comparison, door, grid
from babeltune.__main__ import main as babeltune_main
from babeltune.errors import ConfigError
from tests.commands import ROOT
from tests.finished import finish, note, score

TRAIN = Path(__file__).parents[1] / "train.py"


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(cells: object, workers: object = None) -> None:
        raise AssertionError("a cell was about to run")

    monkeypatch.setattr(grid, "run", run)
    monkeypatch.chdir(tmp_path)


def answer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """The lines that a refused command prints on stderr."""
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert door.main(list(words)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert list(Path().iterdir()) == [] or [path.name for path in Path().iterdir()] == ["outputs"]
    return said.err.splitlines()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("data=zh_alpacca4", ["data: got 'zh_alpacca4'; expected one of the {mixes} options in conf/data; try data=zh_alpaca4, "]),
        ("+adapter.rnak=3", ["adapter.rnak: got an unknown key; expected a key of adapter; try adapter.rank"]),
        ("=3", ["command line: got '=3'; expected group=option or key=value"]),
        ("data=3", ["data: got '3'; expected one of the {mixes} options in conf/data"]),
        ("sweeps=demmo", ["sweeps: got 'demmo'; expected one of the "]),
        ("adapter.rank=abc seed=-1 dta=x", ["dta: got an unknown key", "adapter.rank: got 'abc'", "seed: got -1"]),
        ("precision=int8 adapter=none", ["precision=int8 with adapter=none: got quantised weights to train"]),
        ("evaluation.metrics=[chrff]", ["evaluation.metrics: got 'chrff'; expected some of "]),
        ("--config-dir nowhere adapter.rank=abc", ["adapter.rank: got 'abc'"]),
        ("-m data=toy_zh,zh_alpacca4", ["data=zh_alpacca4: data: got 'zh_alpacca4'"]),
        ("seed=0 -m data=toy_zh,zh_alpacca4", ["seed=0 data=zh_alpacca4: data: got 'zh_alpacca4'"]),
        ("sweeps=belle grid.name=a=b", ["command line: got 'grid.name=a=b'; expected group=option or key=value"]),
        (
            "-m data=toy_zh adapter.rank=1,x,0",
            ["data=toy_zh adapter.rank=x: adapter.rank: got 'x'", "data=toy_zh adapter.rank=0: "],
        ),
        (
            "-m precision=int8,fp32 adapter=lora,none seed=-1",
            [
                "precision=int8 adapter=lora seed=-1: seed: got -1",
                "precision=int8 adapter=none seed=-1: seed: got -1",
                "precision=int8 adapter=none seed=-1: precision=int8 with adapter=none: got quantised weights",
                "precision=fp32 adapter=lora seed=-1: seed: got -1",
                "precision=fp32 adapter=none seed=-1: seed: got -1",
            ],
        ),
        ("-m data=toy_zh,toy_en evaluation=toy_zh,toy_en", ["evaluation: got toy_zh, toy_en in one grid"]),
        ("sweeps=demo adapter.rank=0", [f"data={mix}" for mix in ("toy_zh", "toy_zh", "toy_zh_noisy")]),
        ("grid.cells=[{data:toy_en}]", ["grid.cells: got 1 cells for a single run; expected a grid; try -m"]),
        ("-m grid.cells=[{}]", ["grid.cells[0]: got {{}}; expected keys with values; try {{data: none}}"]),
        (
            "-m grid.cells=[{data:toy_en},{data:toy_e},{adapter.rnk:3}] seed=0,1",
            ["grid.cells[1]: data: got 'toy_e'; expected one of the", "grid.cells[2]: adapter.rnk: got an unknown key"],
        ),
        ("-m grid.cells=[{data:toy_en,adapter.rank:0},{data:toy_vi}]", ["grid.cells[0]: data=toy_en adapter.rank=0 grid.cells="]),
        ("-m grid.cells=[toy_en]", ["grid.cells[0]: got 'toy_en'; expected keys with values"]),
        ("evaluation.prompt=x", ["evaluation.prompt: got 'x'; expected a text with {{question}} in it once"]),
        ("grid.baseline=x", ["grid.baseline: got 'x'; expected a row of the table (toy_zh); try toy_zh"]),
    ],
)
def test_a_bad_command_is_refused_in_sentences(
    words: str, said: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = answer(capsys, monkeypatch, *words.split())
    mixes = len(list((TRAIN.parent / "conf" / "data").glob("*.yaml")))
    for line, wanted in zip(lines, said, strict="demo" not in words):
        assert line.startswith(f"error: {wanted.format(mixes=mixes)}")


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(AssertionError, match="a cell was about to run"):
        door.main(["data=toy_zh", "-m"])


def train(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TRAIN, *words], capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize("words", [["seed=1.5"], ["-m", "data=toy_zh,nope"]])
def test_the_real_command_prints_one_line_and_exits_2(words: list[str], tmp_path: Path) -> None:
    done = train(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")


def test_cfg_job_prints_the_config_from_any_folder(tmp_path: Path) -> None:
    done = train("--cfg", "job", "data=toy_vi", "adapter.rank=16", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "name: toy_vi" in done.stdout
    assert "rank: 16" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_help_names_the_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main(["--help"]) == 0
    said = capsys.readouterr().out
    for words in ("python train.py -m data=", "\ndata=\n", "\nadapter=\n", "Low-rank updates added", "\nsweeps=\n"):
        assert words in said


def table(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["babeltune", *words])
    return babeltune_main()


def test_a_grids_table_is_printed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = ["data=toy_zh", "grid.name=mine"]
    finish(cell, [score("toy/exact_match", {"a": 100.0, "b": 0.0})], tmp_path / "outputs")
    note([cell], tmp_path / "outputs")
    assert table(monkeypatch, "table", "mine", "--format", "csv") == 0
    assert "toy_zh,50.0,baseline" in capsys.readouterr().out
    assert table(monkeypatch, "table", "mime") == 2
    assert capsys.readouterr().err == "error: table: got 'mime'; expected a grid in outputs/grids; try mine\n"
    assert table(monkeypatch, "table", "mine", "--format", "pdf") == 2
    said = "error: FORMAT: got 'pdf'; expected one of text, md, latex, csv, html; try csv, html, latex, md, text\n"
    assert capsys.readouterr().err == said
    (tmp_path / "outputs" / "grids" / "mine.json").write_text("{")
    assert table(monkeypatch, "table", "mine") == 2
    assert "mine.json: got a damaged file" in capsys.readouterr().err


def asked_for(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[tuple[str, str, int]]:
    """Model, mix and seed of the cells that a command would run."""
    from babeltune.options import RunConfig

    wanted: list[RunConfig] = []

    def named(configs: list[RunConfig]) -> list[RunConfig]:
        wanted.extend(configs)
        raise ConfigError("that is all")

    monkeypatch.setattr(comparison, "named", named)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert door.main(list(words)) == 2
    return [(config.model.name, config.data.name, config.seed) for config in wanted]


def test_the_cells_that_a_sweep_lists_come_after_those_of_its_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked_for(monkeypatch, "sweeps=belle", "seed=0,1")
    assert len(found) == 16
    assert found[-3:] == [
        ("llama_ext_7b", "zh_alpaca354_sharegpt_belle35", 1),
        ("llama_7b", "zh_alpaca354_sharegpt", 0),
        ("llama_7b", "zh_alpaca354_sharegpt", 1),
    ]


def test_a_grid_may_be_a_list_of_cells_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked_for(monkeypatch, "-m", "grid.cells=[{data:toy_en,seed:2},{data:toy_vi,optimizer.clip:null}]")
    assert found == [("tiny", "toy_en", 2), ("tiny", "toy_vi", 0)]


@pytest.mark.parametrize(
    "value", ["none", "null", "1.5", "先思考", 'a "b", {c}', "\n", "=", 1.5, 3, True, None, ["q_proj", "v"], {"count": 5}]
)
def test_an_entry_means_what_it_says(value: object) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = door.listed({"data.take": value})
    assert OverridesParser.create().parse_override(override).value() == value


def test_help_may_be_read_in_part() -> None:
    command = f"{sys.executable} train.py --help | head -1"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT, check=True)
    assert ended.stderr == ""
