"""Several processes of a cell end together, however one of them ends; and what another number of processes goes on with."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import QUICK, cells, children, running, steps_done, wait_for
from tests.training import jobs
from tests.training.conftest import Start, Started, adapter, cell_folder, losses, metrics, untrained_copy, wait_for_step

TWO = ("trainer=ddp_cpu", "trainer.micro_tokens=448", "trainer.checkpoint_steps=3")
NEVER = "trainer.checkpoint_steps=1000"
ASKING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
GONE_SECONDS = 60
CELL = ("data=toy_zh", *QUICK, "optimizer.epochs=50", NEVER, "logger=none")

Ranks = Callable[..., list[Started]]


def test_two_processes_that_are_asked_to_stop_anywhere_lose_no_step(start_ranks: Ranks, whole: Path, tmp_path: Path) -> None:
    rng = random.Random(3)
    straight, stopped = (untrained_copy(whole, tmp_path / name) for name in ("straight", "stopped"))
    for rank in start_ranks(2, jobs.train, straight, TWO):
        assert rank.code() == 0, rank.said
    for number, asked in enumerate(ASKING):
        step = 3 * number + rng.randrange(1, 3)
        ranks = start_ranks(2, jobs.train, stopped, (*TWO, NEVER))
        wait_for_step(stopped, step)
        os.kill(ranks[rng.randrange(2)].process.pid, asked)
        for rank in ranks:
            assert rank.code(GONE_SECONDS) == jobs.PREEMPTED, rank.said
        newest = max(path.stem for path in (cell_folder(stopped) / "checkpoints").glob("*.ckpt"))
        assert newest == f"step-{len(metrics(stopped)):08d}", "not a step is lost"
    for rank in start_ranks(2, jobs.train, stopped, TWO):
        assert rank.code() == 0, rank.said
    assert losses(stopped) == losses(straight)
    assert adapter(stopped) == adapter(straight)


@pytest.mark.parametrize(
    ("hands", "trainer"),
    [
        (jobs.AtStep(4, jobs.fail, rank=0), "ddp_cpu"),
        (jobs.AtStep(4, jobs.fail, rank=1), "fsdp_cpu"),
        (jobs.KilledIn(6, "fsync"), "ddp_cpu"),
        (jobs.KilledIn(6, "replace"), "fsdp_cpu"),
    ],
    ids=["first-raises", "second-raises-in-pieces", "dies-saving", "dies-saving-pieces"],
)
def test_no_process_is_left_when_one_raises_or_dies_in_a_save(
    start_ranks: Ranks, untrained: Path, hands: Callable[[], None], trainer: str
) -> None:
    began = time.monotonic()
    for rank in start_ranks(2, jobs.train, untrained, (*TWO, f"trainer={trainer}", *TWO[1:]), sabotage=hands):
        assert rank.code(GONE_SECONDS) != 0, rank.said
    assert time.monotonic() - began < GONE_SECONDS
    assert not (cell_folder(untrained) / "trained.json").exists()


def test_other_processes_go_on_with_the_same_examples(start: Start, start_ranks: Ranks, whole: Path, tmp_path: Path) -> None:
    outputs = untrained_copy(whole, tmp_path / "outputs")
    diary = jobs.Diary(tmp_path / "diary")
    assert start(jobs.train, outputs, sabotage=jobs.Both(diary, jobs.AtStep(3, jobs.terminate_me))).code() == jobs.PREEMPTED
    hands = jobs.Both(diary, jobs.AtStep(7, jobs.terminate_me))
    for rank in start_ranks(2, jobs.train, outputs, ("trainer=fsdp_cpu", "trainer.micro_tokens=700"), sabotage=hands):
        assert rank.code() == jobs.PREEMPTED, rank.said
    single = start(jobs.train, outputs, ("data.workers=1", "trainer.micro_tokens=300"), sabotage=diary)
    assert single.code() == 0, single.said
    seen: defaultdict[int, list[int]] = defaultdict(list)
    for line in (tmp_path / "diary").read_text().splitlines():
        note = json.loads(line)
        seen[note["step"]] += note["examples"]
    assert start(jobs.train, tmp_path / "other", sabotage=jobs.Diary(tmp_path / "alone")).code() == 0
    notes = [json.loads(line) for line in (tmp_path / "alone").read_text().splitlines()]
    assert {step: sorted(examples) for step, examples in seen.items()} == {note["step"]: sorted(note["examples"]) for note in notes}


def test_of_processes_that_ask_for_a_cell_at_once_one_trains_it(start: Start, untrained: Path, whole: Path) -> None:
    started = [start(jobs.train, untrained) for _ in range(4)]
    codes = [one.code() for one in started]
    assert sorted(codes) == [0, *[jobs.REFUSED] * 3]
    for one, code in zip(started, codes, strict=True):
        assert code == 0 or "expected a free cell; try again when it has ended" in one.said
    assert losses(untrained) == losses(whole)
    assert adapter(untrained) == adapter(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "code", "trainer"), [(signal.SIGUSR1, 143, "ddp_cpu"), (signal.SIGTERM, 143, "ddp_cpu"), (signal.SIGINT, 130, "cpu")]
)
def test_a_command_that_is_asked_to_stop_leaves_a_checkpoint_and_no_process(
    asked: signal.Signals, code: int, trainer: str, tmp_path: Path
) -> None:
    with running(*CELL, f"trainer={trainer}", f"paths.outputs={tmp_path}") as process:
        cell = wait_for(lambda: next(tmp_path.glob("toy_zh*"), None))
        wait_for(lambda: steps_done(cell) > 2)
        workers = children(process.pid)
        process.send_signal(asked)
        _, err = process.communicate(timeout=GONE_SECONDS)
        assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert process.returncode == code, err
    assert len(workers) == (2 if trainer == "ddp_cpu" else 1)
    (checkpoint,) = cell.glob("checkpoints/*.ckpt")
    assert checkpoint.stem == f"step-{steps_done(cell):08d}"


@pytest.mark.slow
def test_a_process_that_dies_before_it_has_met_the_others_ends_them(tmp_path: Path) -> None:
    with running(*CELL, "trainer=ddp_cpu", f"paths.outputs={tmp_path}") as process:
        workers = sorted(wait_for(lambda: found if len(found := children(process.pid)) == 2 else None))
        os.kill(workers[1], signal.SIGKILL)
        began = time.monotonic()
        _, err = process.communicate(timeout=GONE_SECONDS)
        assert time.monotonic() - began < GONE_SECONDS
        assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert process.returncode == 1
    assert "its process was killed (signal 9" in err
    assert cells(tmp_path) == {}
