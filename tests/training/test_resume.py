"""A run that is stopped, however it is stopped, goes on to the same numbers, to the last bit."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.training import jobs
from tests.training.conftest import Start, adapter, cell_folder, losses, metrics, untrained_copy, wait_for_step

KILLS = 6


def _is_whole(outputs: Path, whole: Path) -> bool:
    """Whether a run has the losses, the steps and the adapter of the one that nobody stopped."""
    assert [line["step"] for line in metrics(outputs)] == list(range(1, jobs.STEPS + 1))
    return losses(outputs) == losses(whole) and adapter(outputs) == adapter(whole)


def test_a_step_of_these_tests_has_several_micro_batches_and_drops_inputs(start: Start, untrained: Path, tmp_path: Path) -> None:
    assert start(jobs.train, untrained, sabotage=jobs.Diary(tmp_path / "diary")).code() == 0
    notes = [json.loads(line) for line in (tmp_path / "diary").read_text().splitlines()]
    assert len(notes) == jobs.STEPS
    assert all(note["micro_batches"] > 1 and note["is_training"] and note["is_dropping"] for note in notes)
    first, second = ({number for note in notes[part] for number in note["examples"]} for part in (slice(6), slice(6, 12)))
    assert first == second == set(range(44))


def test_a_killed_run_goes_on_to_the_same_bits(start: Start, whole: Path, tmp_path: Path) -> None:
    rng = random.Random(7)
    for kill in range(KILLS):
        outputs = untrained_copy(whole, tmp_path / f"killed-{kill}")
        every = f"trainer.checkpoint_steps={1 + kill % 4}"
        running = start(jobs.train, outputs, (every,))
        wait_for_step(outputs, rng.randrange(1, jobs.STEPS))
        time.sleep(rng.random() * 0.1)
        running.process.kill()
        assert running.code() in (-signal.SIGKILL, 0)
        running = start(jobs.train, outputs, (every,))
        assert running.code() == 0, running.said
        assert _is_whole(outputs, whole), f"kill {kill}"


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_kill_while_a_checkpoint_is_written_costs_no_bit(start: Start, untrained: Path, whole: Path, moment: str) -> None:
    assert start(jobs.train, untrained, sabotage=jobs.KilledIn(6, moment)).code() == -signal.SIGKILL
    folder = cell_folder(untrained) / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {"step-00000003.ckpt", ".step-00000006.ckpt.tmp"}
    running = start(jobs.train, untrained)
    assert running.code() == 0
    assert "from step 3" in running.said
    assert _is_whole(untrained, whole)
    assert not folder.exists(), "nothing is left to go on with"


@pytest.mark.parametrize("ask", [jobs.terminate_me, jobs.preempt_me, jobs.interrupt_me])
def test_a_run_that_is_asked_to_stop_ends_after_its_step_and_goes_on_from_there(
    start: Start, untrained: Path, whole: Path, ask: object
) -> None:
    never = ("trainer.checkpoint_steps=1000",)
    running = start(jobs.train, untrained, never, sabotage=jobs.AtStep(4, ask))
    assert running.code() == jobs.PREEMPTED, running.said
    assert "stopped at step 5 of 12" in running.said
    assert [path.name for path in (cell_folder(untrained) / "checkpoints").iterdir()] == ["step-00000005.ckpt"]
    running = start(jobs.train, untrained, never)
    assert running.code() == 0
    assert "training 12 steps from step 5" in running.said
    assert _is_whole(untrained, whole)


def test_a_run_that_is_stopped_in_its_last_step_has_nothing_left_to_train(start: Start, untrained: Path, whole: Path) -> None:
    assert start(jobs.train, untrained, sabotage=jobs.AtStep(11, jobs.terminate_me)).code() == jobs.PREEMPTED
    assert start(jobs.train, untrained).code() == 0
    assert _is_whole(untrained, whole)


def test_a_damaged_checkpoint_is_passed_over_and_written_anew(start: Start, untrained: Path, whole: Path) -> None:
    assert start(jobs.train, untrained, sabotage=jobs.AtStep(7, jobs.kill_me)).code() == -signal.SIGKILL
    folder = cell_folder(untrained) / "checkpoints"
    raw = bytearray((folder / "step-00000006.ckpt").read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / "step-00000006.ckpt").write_bytes(raw)
    running = start(jobs.train, untrained, sabotage=jobs.AtStep(4, jobs.terminate_me))
    assert running.code() == jobs.PREEMPTED
    assert "step-00000006.ckpt is damaged" in running.said
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000003.ckpt", "step-00000005.ckpt"]
    for path in folder.iterdir():
        path.write_bytes(b"")
    running = start(jobs.train, untrained)
    assert running.code() == 0
    assert running.said.count("is damaged") == 2
    assert "from step 0" in running.said
    assert _is_whole(untrained, whole)


def test_loader_processes_change_no_bit(start: Start, whole: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        outputs = untrained_copy(whole, tmp_path / f"workers-{workers}")
        assert start(jobs.train, outputs, (f"data.workers={workers}",)).code() == 0
        assert _is_whole(outputs, whole), f"{workers} workers"


def test_a_cell_has_the_same_bits_after_another_one_in_the_same_process(start: Start, whole: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "warm"
    running = start(jobs.train_many, outputs, (("seed=5", "adapter.rank=4"), ()))
    assert running.code() == 0, running.said
    cell = cell_folder(whole).name
    shutil.rmtree(next(path.parent for path in outputs.glob("*/identity.json") if path.parent.name != cell))
    assert _is_whole(outputs, whole)


def test_a_checkpoint_of_other_data_is_refused(start: Start, untrained: Path, whole: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    changes = ("data.max_rows=40", "optimizer.max_steps=4")
    assert start(jobs.train, other, changes, sabotage=jobs.AtStep(2, jobs.terminate_me)).code() == jobs.PREEMPTED
    shutil.copytree(cell_folder(other) / "checkpoints", cell_folder(untrained) / "checkpoints")
    running = start(jobs.train, untrained)
    assert running.code() == jobs.REFUSED
    said = next(line for line in running.said.splitlines() if line.startswith("error: "))
    assert "step-00000003.ckpt: got a checkpoint of another cell (data.max_rows 40 there, 44 here, " in said
    assert said.endswith("; expected one of this cell; try removing it; training begins anew")
