"""Grids on a real Ray of one machine. Skipped where Ray is not installed: pip install '.[ray]'."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from pathlib import Path

import pytest

from tests.commands import QUICK, cells, numbers, running, steps_done, train, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: nothing of it was tested here"),
]

CELLS = ["-m", "data=toy_zh,toy_en", *QUICK, "optimizer.epochs=2", "trainer.checkpoint_steps=1000", "adapter.dropout=0.1"]


def test_a_grid_that_is_stopped_goes_on_to_the_numbers_of_this_machine(tmp_path: Path) -> None:
    train(*CELLS, f"paths.outputs={tmp_path / 'alone'}")
    words = [*CELLS, "hydra/launcher=ray", f"paths.outputs={tmp_path / 'ray'}"]
    with running(*words) as process:
        cell = wait_for(lambda: next(tmp_path.glob("ray/toy_zh*"), None))
        wait_for(lambda: steps_done(cell) > 3)
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert list(cell.glob("checkpoints/*.ckpt")), "the step it was stopped at is kept"

    out, err = train(*words)
    assert "toy_zh" in out
    assert json.loads((cell / "trained.json").read_text())["resumed_at"] > 3
    for name, folder in cells(tmp_path / "alone").items():
        assert numbers(cells(tmp_path / "ray")[name]) == numbers(folder)


def test_a_failing_cell_costs_itself_only_and_says_why(tmp_path: Path) -> None:
    rates = ["-m", "data=toy_zh", "optimizer.learning_rate=1e30,1e-3", "optimizer.clip=null", "optimizer.max_steps=4", *QUICK]
    _, err = train(*rates, "hydra/launcher=ray", f"paths.outputs={tmp_path}", code=1)
    assert len(cells(tmp_path)) == 1
    assert "a loss of nan; expected a finite one" in err


def test_more_than_the_cluster_has_is_refused(tmp_path: Path) -> None:
    words = ["data=toy_zh", *QUICK, "trainer.threads=1000", "hydra/launcher=ray", f"paths.outputs={tmp_path}"]
    _, err = train(*words, code=2)
    assert "hydra/launcher=ray: got " in err
    assert "expected 1000 for toy_zh" in err
