"""Which cells a plan lists, where they stand, and what it prints. Nothing is calibrated here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from babeltune import door, grid, planned
from babeltune.cells import cell_of
from babeltune.config import compose
from babeltune.plan import asking, printing
from babeltune.plan.asking import Line
from babeltune.planned import PARTS, Facts
from babeltune.results import evaluation_folder, write_json

QUICK = ("model=tiny_fresh", "evaluation=toy_zh", "logger=none")
KNOWN = Facts(
    trainable=61_440,
    total=765_056,
    tokens=37_258,
    target_tokens=4_620,
    steps=24,
    memory=dict(zip(PARTS, (464_000_000, 3_000_000, 250_000, 250_000, 500_000, 85_000_000, 194_000_000), strict=True)),
    free=20_000_000_000,
    loading=1.0,
    seconds=30.0,
    cpu_seconds=29.0,
    evaluation=10.0,
    starting=8.0,
    disk={"kept": 3_000_000, "passing": 1_000_000, "cache": 2_000_000},
    items=150,
    how="measured",
)


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(cells: object, workers: object = None) -> None:
        raise AssertionError("a cell was about to run")

    def measured(left: Sequence[Line]) -> list[Facts]:
        return [KNOWN if line.cell is not None else Facts() for line in left]

    monkeypatch.setattr(grid, "run", run)
    monkeypatch.setattr(asking, "_measured", measured)
    monkeypatch.chdir(tmp_path)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert door.main(["plan=true", *words]) == 0
    return capsys.readouterr().out


def finish(folder: Path, evaluation: str | None, **training: Any) -> None:
    write_json(folder / "trained.json", {"steps": 24, "ledger": {"rows": [], "epochs": 1.0}} | training)
    if evaluation:
        write_json(folder / "result.json", {})
        write_json(evaluation_folder(folder, evaluation) / "scores.json", {})


def test_a_plan_of_one_cell_is_a_table_with_its_memory_and_its_sums(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, *QUICK)
    name = cell_of(compose(QUICK)).folder.name
    row = next(line for line in out.splitlines() if line.startswith(name)).split("  ")
    assert [word.strip() for word in row if word.strip()] == [
        *(name, "new", "61,440", "765,056", "24", "37,258", "4,620", "747 MB", "30 s", "≤ 10 s", "6.00 MB", "—")
    ]
    assert "464 MB" in out
    assert "20.00 GB" in out
    assert out.splitlines()[-3:] == [
        "1 of 1 cell to run",
        "time: at most 50 s",
        "disk: 3.00 MB stay, checkpoints take 1.00 MB while cells run",
    ]


def test_a_plan_writes_in_no_cells_folder_and_keeps_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, *QUICK)
    cell = cell_of(compose(QUICK))
    assert not cell.folder.exists()
    assert not Path("outputs/grids").exists()
    assert planned.kept(Path("outputs/.cache"), cell.identity) == {
        "seconds": 30.0,
        "cpu_seconds": 29.0,
        "peak_bytes": KNOWN.peak_bytes,
        "steps": 24,
        "tokens": 37_258,
    }


def test_a_plan_changes_no_identity() -> None:
    assert cell_of(compose([*QUICK, "plan=true"])).folder == cell_of(compose(QUICK)).folder


def test_a_grid_is_planned_with_the_cells_that_its_bases_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "-m", "data=toy_zh,toy_vi", "seed=0,1", "logger=none")
    names = [line.split()[0] for line in out.split("Memory")[0].splitlines() if "-s0-" in line or "-s1-" in line]
    assert len(names) == len(set(names)) == 5
    assert names[0].startswith("toy_documents-")
    assert "5 of 5 cells to run" in out
    assert "2 at a time" in out
    assert f"{names[0]} and 4 more" in out


def test_a_sweep_is_planned_as_it_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "sweeps=demo", "grid.workers=3")
    for mix in ("toy_zh-", "toy_zh_noisy-", "toy_zh_small-", "toy_vi-", "none-"):
        assert any(line.startswith(mix) for line in out.splitlines())
    assert "3 at a time" in out


def test_where_cells_stand_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    cells = [cell_of(compose([*QUICK, f"seed={seed}"])) for seed in range(4)]
    finish(cells[1].folder, None, seconds=5.0)
    finish(
        cells[2].folder,
        cells[2].evaluation,
        seconds=33.0,
        tokens=37_258,
        peak_bytes=760_000_000,
        parameters={"trainable": 61_440, "total": 765_056},
        plan={"seconds": 30.0, "peak_bytes": 747_000_000, "steps": 24, "tokens": 37_258},
    )
    (cells[3].folder / "checkpoints").mkdir(parents=True)
    (cells[3].folder / "checkpoints" / "step-00000012.ckpt").touch()
    out = printed(capsys, "-m", "seed=0,1,2,3", *QUICK)
    states = {line.split()[0]: line for line in out.split("Memory")[0].splitlines() if line.startswith("toy_zh-")}
    assert " new " in states[cells[0].folder.name]
    assert "trained, not judged" in states[cells[1].folder.name]
    assert "started: step 12 of 24" in states[cells[3].folder.name]
    done = states[cells[2].folder.name]
    assert " done " in done
    assert "747 MB | 760 MB" in done
    assert "30 s | 33 s" in done
    assert "of trained cells: planned | actual" in out
    assert "3 of 4 cells to run, 1 done" in out


def test_a_cell_waits_for_the_one_that_it_stands_on() -> None:
    parent, child, *others = (dataclasses.replace(cell_of(compose([*QUICK, f"seed={seed}"])), parent=None) for seed in range(4))
    child = dataclasses.replace(child, parent=parent.folder)
    settings = compose(QUICK)
    lines = [Line("a", settings, cell, "new", facts=KNOWN) for cell in (parent, child, *others)]
    each = 30.0 + 10.0 + 2.0
    assert printing._wall(lines, 4) == 2 * each + 8.0
    assert printing._wall([lines[0], *lines[2:]], 3) == each + 8.0
    assert printing._wall(lines, 1) == 4 * each + 8.0
    assert printing._wall([Line("a", settings, None, "new")], 1) == 0.0


def test_of_a_started_cell_the_rest_counts() -> None:
    line = Line("a", compose(QUICK), cell_of(compose(QUICK)), "started: step 12", steps_done=12, facts=KNOWN)
    assert printing._seconds(line) == 15.0 + 10.0 + 2.0


def test_a_source_that_is_not_here_is_said_and_the_other_cells_are_planned(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "-m", "data=toy_zh,en_alpaca35", "evaluation=none", *QUICK[::2])
    assert "alpaca35_en: not in data/alpaca35_en; " in out
    row = next(line for line in out.splitlines() if line.startswith("en_alpaca35-"))
    assert row.split()[-11:] == ["new", *"?????", "?", "?", "—", "—", "—"]
    assert "; 1 more of unknown time" in out
    assert "2 of 2 cells to run" in out


def test_a_suite_that_is_not_here_keeps_no_cell_from_being_planned(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "data=toy_zh", "evaluation=crass", *QUICK[::2])
    assert "evaluation.sources.eval_crass_43" in out
    assert "30 s" in out


def test_a_warning_names_its_cell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tight = dataclasses.replace(KNOWN, warnings=("needs 6.00 GB where this machine has 5.00 GB free; try precision=nf4",))
    monkeypatch.setattr(asking, "_measured", lambda left: [tight] * len(left))
    out = printed(capsys, *QUICK)
    name = cell_of(compose(QUICK)).folder.name
    assert f"\nwarning: {name} needs 6.00 GB where this machine has 5.00 GB free; try precision=nf4\n" in out


def test_cells_that_fit_one_by_one_and_not_side_by_side_are_warned_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = dataclasses.replace(KNOWN, free=1_000_000_000)
    monkeypatch.setattr(asking, "_measured", lambda left: [tight] * len(left))
    out = printed(capsys, "-m", "seed=0,1", "grid.workers=2", *QUICK)
    assert "warning: 2 cells at a time need 1.49 GB where this machine has 1.00 GB free; try grid.workers=1" in out


def test_half_a_grid_cannot_be_planned(capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main(["-m", "plan=true,false", *QUICK]) == 2
    assert capsys.readouterr().err.strip() == (
        "error: plan: got true for some cells and false for others; expected one word for the whole grid; try plan=true"
    )


def test_a_plan_that_is_damaged_is_none(tmp_path: Path) -> None:
    planned.keep(tmp_path, "abc", KNOWN)
    assert planned.kept(tmp_path, "abc") is not None
    (tmp_path / planned.FOLDER / "abc.json").write_text(json.dumps({"steps": 3}))
    assert planned.kept(tmp_path, "abc") is None
    assert planned.kept(tmp_path, "never planned") is None
