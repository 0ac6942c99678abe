"""What a grid on a cluster is asked for and refused, before any cluster is there."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from babeltune import door, launchers
from babeltune.cells import cell_of
from babeltune.clusters import rays, records, slurm
from babeltune.clusters.records import Record, Told
from babeltune.config import compose
from babeltune.errors import ConfigError
from babeltune.launchers import LocalLauncher, RayLauncher, SlurmLauncher
from babeltune.progress import Standing, state_of

SHAPE = slurm.Shape(nodes=2, devices=4, threads=3, gpus=True, after=("7_1",), behind=())


@pytest.fixture(autouse=True)
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with no command of Slurm, and a folder with nothing in it."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "hydra/launcher=slrum",
            "hydra/launcher: got 'slrum'; expected one of the 3 options in conf/hydra/launcher; try hydra/launcher=",
        ),
        (
            "hydra/launcher=slurm hydra.launcher.partitoin=gpu",
            "hydra.launcher.partitoin: got an unknown key; expected a key of the launcher that is chosen; "
            "try hydra.launcher.partition",
        ),
        (
            "hydra.launcher.partition=gpu",
            "hydra.launcher.partition: got an unknown key; expected a key of the launcher that is chosen; try hydra/launcher=slurm",
        ),
        (
            "hydra/launcher=slurm +hydra.launcher.partitoin=gpu",
            "hydra.launcher.partitoin: got an unknown key; expected a key of hydra/launcher=slurm; try hydra.launcher.partition",
        ),
        (
            "hydra/launcher=slurm hydra.launcher.timeout_min=long",
            "hydra.launcher.timeout_min: got 'long'; expected a whole number; try hydra.launcher.timeout_min=null",
        ),
        (
            "hydra/launcher=slurm hydra.launcher.timeout_min=0",
            "hydra.launcher.timeout_min: got 0; expected at least 1; try hydra.launcher.timeout_min=1",
        ),
        (
            "hydra/launcher=slurm hydra.launcher.sbatch.exclude=node7",
            "hydra.launcher.sbatch: got an entry that is not there yet; expected a + before it; "
            "try '+hydra.launcher.sbatch={NAME: VALUE}'",
        ),
        (
            "hydra/launcher=slurm hydra.launcher.timeout_min=2",
            "hydra.launcher.signal_delay_s: got 120 s of 2 min; expected less than the job's whole time; "
            "try hydra.launcher.signal_delay_s=60",
        ),
        (
            "hydra/launcher=slurm",
            "hydra/launcher=slurm: got no sbatch, srun, squeue, scontrol on this machine; expected a machine of a Slurm cluster "
            "from which jobs are submitted; try hydra/launcher=babeltune to run the cells here",
        ),
        ("hydra/launcher=slurm adapter.rank=0", "adapter.rank: got 0; expected "),
        ("hydra/launcher=joblib", "hydra/launcher: got 'joblib'; expected one of the 3 options"),
    ],
)
@pytest.mark.parametrize("flag", [[], ["-m"]])
def test_a_cluster_that_cannot_be_is_refused_in_a_sentence(
    words: str, said: str, flag: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert door.main([*flag, "data=toy_zh", "evaluation=none", "model=tiny_fresh", *words.split()]) == door.REFUSED
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(("option", "module"), [("slurm", "submitit"), ("ray", "ray")])
def test_without_its_extra_a_launcher_names_it(
    option: str, module: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as Python has it where nothing is installed
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert door.main(["data=toy_zh", "evaluation=none", "model=tiny_fresh", f"hydra/launcher={option}"]) == door.REFUSED
    assert capsys.readouterr().err == (
        f"error: hydra/launcher={option}: got no {module} in this Python; expected the extra that it needs; "
        f"try pip install '.[{option}]'\n"
    )


def test_a_launcher_is_what_its_options_say() -> None:
    assert launchers.read({"kind": "babeltune", "_target_": launchers.PLUGIN}) == LocalLauncher()
    assert launchers.read({"kind": "slurm", "partition": "gpu"}) == SlurmLauncher(partition="gpu")
    with pytest.raises(ConfigError, match=r"hydra/launcher: got JoblibLauncher; expected one of babeltune, slurm, ray"):
        launchers.read({"_target_": "hydra_plugins.hydra_joblib_launcher.JoblibLauncher"})


def test_what_runs_a_cell_is_no_part_of_its_identity() -> None:
    alone, shared = compose(["data=toy_zh"]), compose(["data=toy_zh", "hydra/launcher=slurm", "hydra.launcher.partition=gpu"])
    assert alone == shared


def test_an_array_asks_slurm_for_a_task_for_each_device() -> None:
    from submitit.slurm.slurm import _make_sbatch_string

    launcher = SlurmLauncher(
        partition="gpu",
        account="lab",
        timeout_min=90,
        mem_gb=1.5,
        gpu_type="a100",
        array_parallelism=2,
        signal_delay_s=60,
        setup=["module load cuda"],
        sbatch={"exclude": "node7"},
    )
    asked = slurm.parameters(SHAPE, launcher, "my grid/1", 3)
    lines = _make_sbatch_string(command="python", folder="/shared", map_count=3, **asked).splitlines()
    for line in (
        "--array=0-2%2",
        "--partition=gpu",
        "--account=lab",
        "--time=90",
        "--mem=1536M",
        "--nodes=2",
        "--ntasks-per-node=4",
        "--cpus-per-task=3",
        "--gpus-per-node=a100:4",
        "--signal=USR2@60",
        "--requeue",
        "--dependency=afterok:7_1",
        "--kill-on-invalid-dep=yes",
        "--exclude=node7",
        "--job-name=babeltune-my-grid-1",
    ):
        assert f"#SBATCH {line}" in lines
    assert lines.index("export OMP_NUM_THREADS=3") < lines.index("module load cuda") < len(lines) - 1
    assert any("--kill-on-bad-exit=1 --cpus-per-task=3" in line for line in lines)


def test_nothing_is_asked_for_that_nobody_set() -> None:
    asked = slurm.parameters(slurm.Shape(1, 1, 1, gpus=False, after=(), behind=()), SlurmLauncher(), "x", 1)
    assert asked["time"] is None
    assert not {"partition", "account", "qos", "constraint"} & asked.keys()
    assert asked["additional_parameters"] == {"requeue": True, "signal": "USR2@120"}


def a_standing(tmp_path: Path, *words: str) -> Standing:
    cell = cell_of(compose(["data=toy_zh", "model=tiny_fresh", f"paths.outputs={tmp_path}", *words]))
    records.note(cell.folder, Record("12_0", "grid", cell.evaluation, "/shared/12_0.err"))
    return Standing(cell)


def test_a_job_is_followed_from_the_queue_to_its_end(tmp_path: Path) -> None:
    standing = a_standing(tmp_path)
    told = Told(standing.cell.folder, "12_0")
    slurm.look(standing, {"12_0": ("PENDING", "Priority")}, [standing], {})
    assert state_of(standing) == "queued: job 12_0 (Priority)"
    slurm.look(standing, {"12_0": ("RUNNING", "None")}, [standing], {})
    assert state_of(standing) == "starting"
    told.send("progress", phase="training", done=3, total=9, note="loss 2.0")
    slurm.look(standing, {"12_0": ("RUNNING", "None")}, [standing], {})
    assert "training ███░░░░░░░ 3/9" in state_of(standing)
    told.send("failed", reason="too little memory")
    slurm.look(standing, {}, [standing], {})
    assert state_of(standing) == "failed: too little memory"


def test_what_an_earlier_job_said_is_not_taken_for_the_words_of_this_one(tmp_path: Path) -> None:
    standing = a_standing(tmp_path)
    Told(standing.cell.folder, "11_0").send("failed", reason="long ago")
    assert records.heard(standing.cell.folder, "12_0") == {}


def test_a_cell_whose_parent_failed_is_not_waited_for(tmp_path: Path) -> None:
    parent = a_standing(tmp_path, "seed=1")
    parent.state = "failed"
    standing = a_standing(tmp_path)
    standing.cell = dataclasses.replace(standing.cell, parent=parent.cell.folder)
    slurm.look(standing, {}, [parent, standing], {})
    assert standing.note == f"the cell it stands on failed: {parent.cell.folder}"


def test_of_several_processes_the_first_speaks_and_the_others_are_heard_when_they_fail(tmp_path: Path) -> None:
    other = Told(tmp_path, "3", is_first=False)
    other.send("progress", phase="training", done=1, total=2)
    assert records.heard(tmp_path, "3") == {}
    other.send("failed", reason="no room")
    assert records.heard(tmp_path, "3")["reason"] == "no room"


def test_ray_keeps_a_core_for_each_thread_and_a_device_for_each_process() -> None:
    cell = cell_of(compose(["data=toy_zh", "model=tiny_fresh", "trainer=ddp", "trainer.devices=2", "trainer.threads=3"]))
    assert rays.wanted(cell, RayLauncher(resources={"a100": 1.0})) == {"CPU": 6.0, "GPU": 2.0, "a100": 1.0}
