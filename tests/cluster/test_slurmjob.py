"""A job of Slurm without Slurm: its environment, its signal and its own command are what Slurm would give."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from babeltune.cells import Cell, cell_of
from babeltune.clusters import slurmjob
from babeltune.clusters.records import heard
from babeltune.config import compose
from babeltune.results import lock
from babeltune.worker import encode
from tests.commands import QUICK, cells, numbers

CELL = ["data=toy_zh", *QUICK, "optimizer.epochs=2", "trainer.checkpoint_steps=1000", "adapter.dropout=0.1"]

JOB = """
import os, signal, sys, threading, time
from pathlib import Path
from babeltune.clusters.slurmjob import CellJob

def time_is_up(metrics):
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 5:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGUSR2)

metrics, *lines = sys.argv[1:]
if metrics:
    threading.Thread(target=time_is_up, args=(Path(metrics),), daemon=True).start()
for line in lines:
    CellJob(line, max_requeues=3)()
"""


def a_cell(outputs: Path, *words: str) -> Cell:
    return cell_of(compose([*CELL, f"paths.outputs={outputs}", *words]))


def start(*run: Cell, tmp_path: Path, metrics: Path | str = "", code: str = JOB, **more: str) -> subprocess.CompletedProcess[str]:
    """A job's only task, in an array, for one cell after another; `metrics` is watched for the moment at which its time is up."""
    command = tmp_path / "bin" / "scontrol"
    command.parent.mkdir(exist_ok=True)
    command.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    command.chmod(0o755)
    slurm = {"SLURM_JOB_ID": "14", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, str(metrics), *map(encode, run)],
        env=os.environ | slurm | {"PATH": f"{command.parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"} | more,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_a_job_whose_time_is_up_is_queued_again_and_comes_to_the_same_numbers(tmp_path: Path) -> None:
    cell = a_cell(tmp_path / "cut")
    first = start(cell, tmp_path=tmp_path, metrics=cell.folder / "metrics.jsonl")
    assert first.returncode == 143, first.stderr
    assert (tmp_path / "asked").read_text() == "requeue 12_1\n", "not 12, which is the whole array"
    assert heard(cell.folder, "12_1")["event"] == "preempted"

    whole = a_cell(tmp_path / "whole")
    second = start(cell, whole, tmp_path=tmp_path, SLURM_RESTART_COUNT="1")
    assert second.returncode == 0, second.stderr
    assert json.loads((cell.folder / "trained.json").read_text())["resumed_at"] >= 5
    assert heard(cell.folder, "12_1")["event"] == "done"

    ((_, cut),) = cells(tmp_path / "cut").items()
    assert numbers(cut) == numbers(whole.folder)


@pytest.mark.slow
def test_a_cell_that_fails_ends_its_job_badly_and_says_why(tmp_path: Path) -> None:
    cell = a_cell(tmp_path, "optimizer.learning_rate=1e30", "optimizer.clip=null")
    assert start(cell, tmp_path=tmp_path).returncode == 1
    told = heard(cell.folder, "12_1")
    assert told["event"] == "failed"
    assert "a loss of nan; expected a finite one; try a smaller optimizer.learning_rate" in told["reason"]


def test_a_job_is_not_queued_again_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    assert slurmjob.requeue("12_1", 3) == (
        "hydra.launcher.max_requeues: got a cell not done after 3 of them; expected fewer; try a larger timeout_min"
    )


@pytest.mark.slow
def test_a_cell_that_another_process_holds_is_waited_for_and_then_named(tmp_path: Path) -> None:
    cell = a_cell(tmp_path)
    with lock(cell.folder):
        done = start(cell, tmp_path=tmp_path, code=f"from babeltune.clusters import slurmjob\nslurmjob.HELD_SECONDS = 1.0\n{JOB}")
    assert done.returncode == 1, done.stderr
    assert "got a cell that process " in heard(cell.folder, "12_1")["reason"]
