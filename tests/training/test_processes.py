"""Several processes train what one trains, and none of them can mix up cells or be left behind."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from tests.training import jobs
from tests.training.conftest import Start, Started, adapter, cell_folder, losses, metrics, untrained_copy

TWO = ("trainer=ddp_cpu", "trainer.micro_tokens=448", "trainer.checkpoint_steps=3")
Ranks = Callable[..., list[Started]]


@pytest.fixture(scope="module")
def undropped() -> tuple[str, ...]:
    """Dropout draws per process, so only without it can two processes equal one."""
    return ("adapter.dropout=0.0",)


def test_two_processes_train_what_one_trains(
    start: Start, start_ranks: Ranks, whole: Path, tmp_path: Path, undropped: tuple[str, ...]
) -> None:
    one, two = (tmp_path / name for name in ("one", "two"))
    for outputs in (one, two):
        outputs.mkdir()
        (outputs / "base").symlink_to(whole / "base")
    single = start(jobs.train, one, undropped)
    assert single.code() == 0, single.said
    for rank in start_ranks(2, jobs.train, two, TWO + undropped, sabotage=jobs.Diary(tmp_path / "diary")):
        assert rank.code() == 0, rank.said
    # Sums are taken in another order; a step of AdamW turns a rounding of a tiny gradient into a rounding of the rate.
    for ours, theirs in zip(metrics(two), metrics(one), strict=True):
        assert ours.keys() == theirs.keys()
        assert ours == pytest.approx(theirs, rel=1e-6 if ours["step"] == 1 else 1e-3)
    weights, wanted = load(adapter(two)), load(adapter(one))
    assert all(torch.allclose(weights[name], wanted[name], atol=2e-3) for name in wanted)
    notes = [json.loads(line) for line in (tmp_path / "diary").read_text().splitlines()]
    by_step = [[note for note in notes if note["step"] == step] for step in range(jobs.STEPS)]
    for first, second in by_step:
        assert first["adapter"] == second["adapter"], "the two hold the same weights"
        assert first["draw"] != second["draw"], "the two draw different masks"
        assert not set(first["examples"]) & set(second["examples"])


def test_two_processes_stop_after_the_same_step_and_go_on_to_the_same_bits(start_ranks: Ranks, whole: Path, tmp_path: Path) -> None:
    straight, stopped = (untrained_copy(whole, tmp_path / name) for name in ("straight", "stopped"))
    for rank in start_ranks(2, jobs.train, straight, TWO):
        assert rank.code() == 0, rank.said
    for rank in start_ranks(2, jobs.train, stopped, TWO, sabotage=jobs.AtStep(4, jobs.terminate_me, rank=1)):
        assert rank.code() == jobs.PREEMPTED, rank.said
        assert "stopped at step 5 of 12" in rank.said
    for rank in start_ranks(2, jobs.train, stopped, TWO):
        assert rank.code() == 0, rank.said
    assert losses(stopped) == losses(straight)
    assert adapter(stopped) == adapter(straight)
    assert "cell " in (tmp_path / "log-0.txt").read_text()


def test_processes_of_different_cells_refuse_to_start(start_ranks: Ranks, untrained: Path) -> None:
    for rank in start_ranks(2, jobs.train, untrained, TWO, sabotage=jobs.OtherCell()):
        assert rank.code() == jobs.REFUSED, rank.said
        assert "trainer.devices: got 2 processes that would not train the same" in rank.said
    assert metrics(untrained) == []


@pytest.mark.parametrize("dying", [0, 1])
def test_no_process_is_left_when_another_dies_in_a_step(start_ranks: Ranks, untrained: Path, dying: int) -> None:
    ranks = start_ranks(2, jobs.train, untrained, TWO, sabotage=jobs.AtStep(4, jobs.kill_me, rank=dying))
    assert ranks[dying].code() != 0
    began = time.monotonic()
    assert ranks[1 - dying].code() != 0
    assert time.monotonic() - began < 30
    assert not (cell_folder(untrained) / "trained.json").exists()
    assert [path.name for path in (cell_folder(untrained) / "checkpoints").iterdir()] == ["step-00000003.ckpt"]
