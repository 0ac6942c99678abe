"""Grids on a real Slurm of one machine. Skipped where its daemons are not installed: no CI machine has them.

apt-get install --no-install-recommends slurmd slurmctld slurm-client munge
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm import missing, slurm
from tests.commands import QUICK, cells, numbers, running, steps_done, train, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.skipif(bool(missing()), reason=f"a real Slurm needs {', '.join(missing())}: nothing of it was tested here"),
]

CELLS = ["-m", "data=toy_zh,toy_en", *QUICK, "optimizer.epochs=2", "trainer.checkpoint_steps=5", "adapter.dropout=0.1"]
SLURM = ["hydra/launcher=slurm", "hydra.launcher.partition=debug", "hydra.launcher.poll_seconds=1"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("slurm")
    with slurm(folder) as environment:
        yield environment


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cells of `CELLS` as this machine runs them without a cluster."""
    outputs = tmp_path_factory.mktemp("alone")
    train(*CELLS, f"paths.outputs={outputs}")
    return outputs


def ask(cluster: dict[str, str], *words: str) -> str:
    done = subprocess.run(words, env=os.environ | cluster, capture_output=True, text=True, check=True)
    return done.stdout


def job(outputs: Path, mix: str) -> str:
    """The id of the job that has the cell of a mix."""
    path: Path = wait_for(lambda: next(outputs.glob(f"{mix}-*/job.json"), None))
    return str(json.loads(path.read_text())["job"])


def cell(outputs: Path, mix: str) -> Path:
    found: Path = wait_for(lambda: next(outputs.glob(f"{mix}-*"), None))
    return found


def test_cells_that_are_stopped_in_the_queues_ways_come_to_the_numbers_of_this_machine(
    cluster: dict[str, str], alone: Path, tmp_path: Path
) -> None:
    with running(*CELLS, *SLURM, f"paths.outputs={tmp_path}", **cluster) as process:
        wait_for(lambda: steps_done(cell(tmp_path, "toy_zh")) > 6)
        ask(cluster, "scancel", "--signal=USR2", job(tmp_path, "toy_zh"))  # as before the end of its time
        wait_for(lambda: steps_done(cell(tmp_path, "toy_en")) > 6)
        ask(cluster, "scontrol", "requeue", job(tmp_path, "toy_en"))  # as when it has to make place
        out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert "toy_zh" in out
    assert job(tmp_path, "toy_zh").split("_")[0] == job(tmp_path, "toy_en").split("_")[0], "one array"
    for name, folder in cells(alone).items():
        assert numbers(cells(tmp_path)[name]) == numbers(folder)
        assert json.loads((tmp_path / name / "trained.json").read_text())["resumed_at"] > 6


def test_jobs_outlive_whoever_submitted_them_and_are_found_again(cluster: dict[str, str], tmp_path: Path) -> None:
    words = [*CELLS, "optimizer.max_steps=4", *SLURM, f"paths.outputs={tmp_path}"]
    with running(*words, **cluster) as process:
        jobs = {job(tmp_path, "toy_zh"), job(tmp_path, "toy_en")}
        os.kill(process.pid, signal.SIGKILL)
    with running(*words, **cluster) as second:  # two at a time, as F12 of a shared cluster
        train(*words, **cluster)
        assert second.wait(timeout=300) == 0
    assert jobs == {job(tmp_path, "toy_zh"), job(tmp_path, "toy_en")}, "nothing was submitted twice"
    assert len(list((tmp_path / ".jobs").glob("*_submission.sh"))) == 1
    assert len(cells(tmp_path)) == 2


def test_two_tasks_share_a_cell(cluster: dict[str, str], tmp_path: Path) -> None:
    train("data=toy_zh", *QUICK, "optimizer.max_steps=4", "trainer=ddp_cpu", *SLURM, f"paths.outputs={tmp_path}", **cluster)
    ((_, folder),) = cells(tmp_path).items()
    assert json.loads((folder / "trained.json").read_text())["devices"] == 2


@pytest.mark.parametrize("rate", ["1e-3", "1e30"])
def test_a_cell_waits_in_the_queue_for_the_one_it_stands_on(rate: str, cluster: dict[str, str], tmp_path: Path) -> None:
    parent = f"data=toy_en {' '.join(QUICK)} optimizer.learning_rate={rate} optimizer.clip=null optimizer.max_steps=4 adapter=none"
    child = ["data=toy_zh", "model=tiny", f"model.from_cell='{parent}'", *QUICK[1:], "optimizer.max_steps=2"]
    _, err = train(*child, *SLURM, f"paths.outputs={tmp_path}", code=0 if rate == "1e-3" else 1, **cluster)
    assert len(list((tmp_path / ".jobs").glob("*_submission.sh"))) == 2
    if rate == "1e-3":
        assert len(cells(tmp_path)) == 2
    else:
        assert " of nan; expected a finite one" in err
        assert "the cell it stands on failed" in err
        assert "2 of 2 cells did not finish" in err


def test_slurms_refusal_is_a_sentence(cluster: dict[str, str], tmp_path: Path) -> None:
    _, err = train(*CELLS, "hydra/launcher=slurm", "hydra.launcher.partition=gold", f"paths.outputs={tmp_path}", code=2, **cluster)
    last = err.splitlines()[-1]
    assert last.startswith("error: hydra/launcher=slurm: got sbatch's refusal (")
    assert "invalid partition" in last
    assert "Traceback" not in err
