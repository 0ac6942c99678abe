"""Processes that torchrun or srun has started share one cell, and it is the cell that a grid's own processes make."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from babeltune import compose
from babeltune.errors import ConfigError
from babeltune.launched import Place, check, first_host, place
from babeltune.launchers import LocalLauncher, RayLauncher, SlurmLauncher
from tests.commands import QUICK, ROOT, cells, children, end, numbers, start, steps_done, train, wait_for

CELL = ("data=toy_zh", *QUICK, "trainer=ddp_cpu", "optimizer.epochs=4", "trainer.checkpoint_steps=5", "logger=none")
GONE_SECONDS = 60


@contextlib.contextmanager
def torchrun(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`torchrun train.py ...` with two processes, in a session of its own."""
    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(ROOT / "train.py")]
    process = subprocess.Popen(
        [*starter, *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    workers: list[int] = []
    try:
        workers += wait_for(lambda: children(process.pid) if len(children(process.pid)) == 2 else None)
        yield process
    finally:
        end(process)
        for worker in workers:  # they have sessions of their own
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)


def srun(*arguments: str) -> list[subprocess.Popen[str]]:
    """Two tasks of a step, told what srun tells them."""
    job = str(os.getpid() % 1000 * 7)
    step = {"SLURM_JOB_ID": job, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NODEID": "0"}
    step["SLURM_STEP_NODELIST"] = "localhost"
    return [start(*arguments, **step, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)) for rank in range(2)]


@pytest.mark.slow
def test_torchrun_makes_the_cell_of_a_grid_and_one_process_speaks(tmp_path: Path) -> None:
    out, _ = train(*CELL, f"paths.outputs={tmp_path / 'grid'}")
    with torchrun(*CELL, f"paths.outputs={tmp_path / 'torchrun'}") as process:
        said, log = process.communicate(timeout=300)
    assert process.returncode == 0, log
    assert said.replace(str(tmp_path / "torchrun"), str(tmp_path / "grid")) == out
    ((name, folder),) = cells(tmp_path / "torchrun").items()
    assert log.count(f"{name}: done in") == 1
    assert numbers(folder) == numbers(cells(tmp_path / "grid")[name])
    assert "from step 0" in (folder / "train.log").read_text()


@pytest.mark.slow
def test_tasks_of_srun_stop_when_slurm_asks_and_go_on(tmp_path: Path) -> None:
    arguments = (*CELL, "trainer=fsdp_cpu", "trainer.checkpoint_steps=1000", f"paths.outputs={tmp_path}")
    tasks = srun(*arguments)
    try:
        cell = wait_for(lambda: next(tmp_path.glob("toy_zh*"), None))
        wait_for(lambda: steps_done(cell) > 2)
        tasks[1].send_signal(signal.SIGUSR1)
        said = [task.communicate(timeout=GONE_SECONDS) for task in tasks]
        assert [task.returncode for task in tasks] == [143, 143], said
        assert "goes on from its last checkpoint" in said[0][1]
        assert said[1] == ("", "")
        ((checkpoint),) = cell.glob("checkpoints/*.ckpt")
        assert int(checkpoint.stem.removeprefix("step-")) == steps_done(cell), "no step is lost"
        tasks += srun(*arguments)
        said = [task.communicate(timeout=300) for task in tasks[2:]]
        assert [task.returncode for task in tasks[2:]] == [0, 0], said
    finally:
        for task in tasks:
            end(task)
    assert "toy_zh" in said[0][0]
    assert said[1][0] == ""
    assert list(cells(tmp_path)) == [cell.name]


@pytest.mark.slow
def test_no_process_of_torchrun_is_left_when_one_dies(tmp_path: Path) -> None:
    with torchrun(*CELL, "optimizer.epochs=50", f"paths.outputs={tmp_path}") as process:
        cell = wait_for(lambda: next(tmp_path.glob("toy_zh*"), None))
        wait_for(lambda: steps_done(cell) > 2)
        workers = children(process.pid)
        began = time.monotonic()
        os.kill(workers[1], signal.SIGKILL)
        process.communicate(timeout=GONE_SECONDS)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), GONE_SECONDS)
    assert process.returncode != 0
    assert time.monotonic() - began < GONE_SECONDS
    assert cells(tmp_path) == {}


@pytest.mark.slow
def test_what_several_processes_cannot_run_is_refused_once(tmp_path: Path) -> None:
    told = {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "2", "GROUP_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for rank in ("0", "1"):
        _, err = train("-m", "data=toy_zh,toy_en", f"paths.outputs={tmp_path}", code=2, **told, RANK=rank, LOCAL_RANK=rank)
        assert ("-m: got 2 cells for 2 processes started by torchrun; expected one cell" in err) == (rank == "0")
        assert len(err.splitlines()) == (rank == "0")


TWO = Place("torchrun", rank=0, local_rank=0, node=0, processes=2, address="localhost", port=1)


@pytest.mark.parametrize(
    ("overrides", "where", "sentence"),
    [
        (
            ("trainer=ddp", "trainer.nodes=2", "trainer.devices=4"),
            None,
            "trainer.nodes: got 2; expected a process for each device of each machine, started by torchrun, srun or "
            "hydra/launcher=slurm; try torchrun --nnodes=2 --nproc-per-node=4 train.py ...",
        ),
        (
            ("trainer=ddp", "trainer.devices=1"),
            TWO,
            "trainer=ddp: got 2 processes started by torchrun; expected 1, trainer.nodes=1 times trainer.devices=1; "
            "try trainer.nodes=2",
        ),
        (
            ("trainer=ddp", "trainer.devices=4"),
            TWO,
            "trainer=ddp: got 2 processes started by torchrun; expected 4, trainer.nodes=1 times trainer.devices=4; "
            "try trainer.nodes=1 trainer.devices=2",
        ),
        (
            ("trainer=cpu",),
            TWO,
            "trainer=cpu: got 2 processes started by torchrun; expected 1, trainer.nodes=1 times trainer.devices=1; "
            "try trainer=ddp_cpu trainer.devices=2, or python train.py",
        ),
    ],
)
def test_a_run_that_wants_other_processes_is_refused(overrides: tuple[str, ...], where: Place | None, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check([compose(["data=toy_zh", *overrides])], where, LocalLauncher())
    assert str(caught.value) == sentence


def test_a_run_that_wants_the_processes_there_are_is_let_in() -> None:
    check([compose(["data=toy_zh", "trainer=ddp_cpu"])], TWO, LocalLauncher())
    check([compose(["data=toy_zh", "trainer=ddp_cpu", "trainer.devices=1", "trainer.nodes=2"])], TWO, LocalLauncher())
    check([compose(["data=toy_zh", "trainer=ddp", "trainer.nodes=2"])], None, SlurmLauncher())


def test_processes_of_a_starter_submit_nothing() -> None:
    with pytest.raises(ConfigError) as caught:
        check([compose(["data=toy_zh", "trainer=ddp_cpu"])], TWO, RayLauncher())
    assert str(caught.value) == (
        "hydra/launcher=ray: got 2 processes started by torchrun; expected one process, which submits the cells; "
        "try python train.py, without torchrun"
    )


def test_a_starter_that_says_half_of_it_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        place({"TORCHELASTIC_RUN_ID": "x"})
    assert str(caught.value) == (
        "the environment of torchrun: got no RANK; expected what torchrun sets for each process; "
        "try torchrun train.py, or without TORCHELASTIC_RUN_ID"
    )


def test_torchruns_and_sruns_words_give_a_place_and_a_batch_scripts_do_not() -> None:
    run = {"TORCHELASTIC_RUN_ID": "x", "RANK": "5", "LOCAL_RANK": "1", "GROUP_RANK": "2", "WORLD_SIZE": "6"}
    assert place(run | {"MASTER_ADDR": "a", "MASTER_PORT": "7"}) == Place("torchrun", 5, 1, 2, 6, "a", 7)
    batch = {"SLURM_JOB_ID": "12", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    assert place(batch) is None
    step = {"SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "gpu[07-09,12]", "SLURM_NODEID": "1"}
    assert place(batch | step | {"SLURM_PROCID": "2"}) == Place("srun", 2, 0, 1, 4, "gpu07", 20000 + 12 * 31 + 3)
    assert place(batch | step | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert place({"RANK": "0", "WORLD_SIZE": "2"}) is None


@pytest.mark.parametrize(
    ("nodes", "first"), [("gpu1", "gpu1"), ("a1,b2", "a1"), ("n[01-03]", "n01"), ("n[5,7-9]-ib,m1", "n5-ib"), ("x-[2]", "x-2")]
)
def test_the_first_machine_of_a_list_is_found(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_where_a_place_is_told_torch_can_meet() -> None:
    told: dict[str, str] = {}
    Place("srun", rank=3, local_rank=1, node=1, processes=4, address=socket.gethostname(), port=20001).tell(told)
    assert told == {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "NODE_RANK": "1",
        "MASTER_ADDR": socket.gethostname(),
        "MASTER_PORT": "20001",
    }
