"""A real plan of real cells, and what training then finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import QUICK, cells, end, start, train, wait_for

pytestmark = pytest.mark.slow

SMALL = [*QUICK, "data.max_rows=64", "logger=none", "data=toy_zh"]
RUNS = ["-m", "seed=0,1", *SMALL]


def columns(out: str) -> list[list[str]]:
    """The rows of a plan's first table."""
    return [line.split() for line in out.split("Memory at")[0].splitlines() if line.startswith("toy_zh-")]


def calibrations(outputs: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (outputs / ".cache" / "calibrations").iterdir()}


def test_a_run_finds_what_its_plan_said(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    out, err = train("plan=true", *RUNS, f"paths.outputs={outputs}")
    rows = columns(out)
    assert [row[1] for row in rows] == ["new", "new"], out
    assert "?" not in out.split("Memory at")[0]
    assert sorted(path.name for path in outputs.iterdir()) == [".cache"]  # no cell, no grid
    made = calibrations(outputs)
    assert len(made) == 1  # the two seeds share it, and its scratch is gone
    assert "planning 2 of 2" in err

    again, _ = train("plan=true", *RUNS, f"paths.outputs={outputs}")
    assert calibrations(outputs) == made
    assert columns(again) == rows

    train(*SMALL, f"paths.outputs={outputs}")
    (folder,) = cells(outputs).values()
    training: dict[str, Any] = json.loads((folder / "result.json").read_text())["training"]
    plan = training["plan"]
    assert plan["steps"] == training["steps"]
    assert plan["tokens"] == training["tokens"]
    assert plan["peak_bytes"] == pytest.approx(training["peak_bytes"], rel=0.2)
    assert plan["cpu_seconds"] == pytest.approx(training["cpu_seconds"], rel=0.6)  # of a few seconds, beside other tests
    ledger = json.loads((folder / "ledger.json").read_text())
    assert rows[0][4] == f"{training['steps']}"
    assert rows[0][3] == f"{training['parameters']['total']:,}"
    assert rows[0][2] == f"{training['parameters']['trainable']:,}"
    assert rows[0][6] == f"{2 * sum(row['target_tokens'] for row in ledger['rows']):,}"  # two epochs

    done, _ = train("plan=true", *SMALL, f"paths.outputs={outputs}")
    (row,) = columns(done)
    assert row[1] == "done"
    assert "of trained cells: planned | actual" in done
    assert "0 of 1 cell to run, 1 done" in done


def test_a_plan_that_is_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    scratch, outputs = tmp_path / "tmp", tmp_path / "outputs"
    scratch.mkdir()
    process = start("plan=true", *SMALL, "-m", f"paths.outputs={outputs}", TMPDIR=str(scratch))
    try:
        wait_for(lambda: list(outputs.glob(".cache/**/calibrating-*")))
        assert list(scratch.glob("babeltune-*"))
        process.terminate()
        process.communicate(timeout=60)
        wait_for(lambda: not list(outputs.glob(".cache/**/calibrating-*")), timeout=30)
    finally:
        end(process)
    assert process.returncode == 143
    assert list(scratch.glob("babeltune-*")) == []
