"""Grids as a user runs them: real commands, real workers, real kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.commands import QUICK, cells, children, numbers, running, steps_done, train, wait_for

pytestmark = pytest.mark.slow

MIXES = ["-m", "data=toy_zh,toy_en", *QUICK, "optimizer.epochs=8", "trainer.checkpoint_steps=5", "adapter.dropout=0.1"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The grid of `MIXES`, run in one go."""
    outputs = tmp_path_factory.mktemp("whole")
    out, _ = train(*MIXES, f"paths.outputs={outputs}")
    assert "toy_zh" in out
    return outputs


def take_over(mix: str, outputs: Path, to: Path) -> None:
    """Begin a folder of results with a cell that is done."""
    ((name, folder),) = [(name, folder) for name, folder in cells(outputs).items() if name.startswith(mix)]
    shutil.copytree(folder, to / name)


def test_a_grid_killed_in_the_middle_goes_on_to_the_same_numbers(uninterrupted: Path, tmp_path: Path) -> None:
    take_over("toy_zh", uninterrupted, tmp_path)
    with running(*MIXES, f"paths.outputs={tmp_path}") as process:
        cell = wait_for(lambda: next(tmp_path.glob("toy_en*"), None))
        wait_for(lambda: steps_done(cell) > 11)
        workers = children(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        wait_for(
            lambda: not any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in workers)
        )
    assert list(cells(tmp_path)) == [name for name in cells(uninterrupted) if name.startswith("toy_zh")]

    _, err = train(*MIXES, f"paths.outputs={tmp_path}")

    assert "toy_zh" in err
    assert "done before" in err
    resumed = json.loads((cell / "trained.json").read_text())["resumed_at"]
    assert resumed >= 10, "the killed cell goes on from its checkpoint"
    assert cells(tmp_path).keys() == cells(uninterrupted).keys()
    for name, folder in cells(uninterrupted).items():
        assert numbers(cells(tmp_path)[name]) == numbers(folder)


def test_the_same_grid_again_trains_nothing_and_prints_the_same_table(uninterrupted: Path) -> None:
    before = {name: (folder / "metrics.jsonl").stat().st_mtime_ns for name, folder in cells(uninterrupted).items()}
    first, _ = train(*MIXES, f"paths.outputs={uninterrupted}", timeout=20)
    second, err = train(*MIXES, f"paths.outputs={uninterrupted}", timeout=20)
    assert first == second
    assert err.count("done before") == 2
    assert before == {name: (folder / "metrics.jsonl").stat().st_mtime_ns for name, folder in cells(uninterrupted).items()}


def test_a_cell_alone_has_the_folder_and_the_numbers_it_has_in_a_grid(uninterrupted: Path, tmp_path: Path) -> None:
    alone = MIXES[2:]
    train("data=toy_en", *alone, f"paths.outputs={tmp_path}")
    ((name, folder),) = cells(tmp_path).items()
    assert numbers(cells(uninterrupted)[name]) == numbers(folder)


def test_a_killed_worker_costs_its_cell_only(tmp_path: Path) -> None:
    with running(*MIXES, f"paths.outputs={tmp_path}", "grid.workers=1") as process:
        cell = wait_for(lambda: next(tmp_path.glob("toy_zh*"), None))
        wait_for(lambda: steps_done(cell) > 3)
        (worker,) = children(process.pid)
        os.kill(worker, signal.SIGKILL)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert [name[:6] for name in cells(tmp_path)] == ["toy_en"]
    assert f"error: {cell.name}: its process was killed (signal 9" in err
    assert "1 of 2 cells did not finish" in err
    assert "Traceback" not in out + err


def test_a_cell_that_raises_costs_itself_only_and_says_why(tmp_path: Path) -> None:
    _, err = train(
        "-m",
        "data=toy_zh",
        "optimizer.learning_rate=1e30,1e-3",
        *QUICK,
        "optimizer.clip=null",
        f"paths.outputs={tmp_path}",
        code=1,
    )
    assert len(cells(tmp_path)) == 1
    assert "a loss of nan; expected a finite one; try a smaller optimizer.learning_rate" in err


def test_a_terminated_grid_says_so_and_goes_on_later(uninterrupted: Path, tmp_path: Path) -> None:
    take_over("toy_en", uninterrupted, tmp_path)
    with running(*MIXES, f"paths.outputs={tmp_path}", "trainer.checkpoint_steps=1000") as process:
        cell = wait_for(lambda: next(tmp_path.glob("toy_zh*"), None))
        wait_for(lambda: steps_done(cell) > 3)
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "goes on" in err
    assert list(cell.glob("checkpoints/*.ckpt")), "the step it was stopped at is kept"
    train(*MIXES, f"paths.outputs={tmp_path}")
    for name, folder in cells(uninterrupted).items():
        assert numbers(cells(tmp_path)[name]) == numbers(folder)


def test_two_grids_at_once_run_each_cell_once(tmp_path: Path) -> None:
    arguments = [*MIXES, f"paths.outputs={tmp_path}", "grid.workers=1"]
    with running(*arguments) as first:
        wait_for(lambda: next(tmp_path.glob("toy_zh*/.lock"), None))
        with running(*arguments) as second:
            _, err = second.communicate(timeout=300)
            first.communicate(timeout=300)
    assert first.returncode == second.returncode == 0, err
    assert len(cells(tmp_path)) == 2
    for folder in cells(tmp_path).values():
        steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert steps == sorted(set(steps)), "no step was done twice"


def test_a_cell_that_another_process_works_on_is_refused(tmp_path: Path) -> None:
    arguments = ["data=toy_zh", *MIXES[2:], f"paths.outputs={tmp_path}", "optimizer.epochs=100"]
    with running(*arguments):
        wait_for(lambda: next(tmp_path.glob("toy_zh*/.lock"), None))
        _, err = train(*arguments, code=1)
    assert "got a cell that process " in err
    assert "expected a free cell; try again when it has ended" in err
    assert "Traceback" not in err


def test_two_processes_share_a_cell_inside_a_grid(uninterrupted: Path, tmp_path: Path) -> None:
    _, err = train(*MIXES, "trainer=ddp_cpu", "optimizer.max_steps=4", f"paths.outputs={tmp_path}")
    train(*MIXES, "optimizer.max_steps=4", f"paths.outputs={tmp_path / 'one'}")
    assert "failed" not in err
    pairs = zip(cells(tmp_path).values(), cells(tmp_path / "one").values(), strict=True)
    for two, one in pairs:
        assert two.name == one.name
        assert json.loads((two / "ledger.json").read_text()) == json.loads((one / "ledger.json").read_text())
        assert json.loads((two / "trained.json").read_text())["devices"] == 2
        losses = [json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["train/loss"] for folder in (one, two)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6), "the first step's loss does not depend on who shares it"


def test_a_dying_process_of_a_shared_cell_costs_that_cell_only(tmp_path: Path) -> None:
    with running(*MIXES, "trainer=ddp_cpu", f"paths.outputs={tmp_path}") as process:
        cell = wait_for(lambda: next(tmp_path.glob("toy_zh*"), None))
        wait_for(lambda: steps_done(cell) > 1)
        os.kill(max(children(process.pid)), signal.SIGKILL)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert [name[:6] for name in cells(tmp_path)] == ["toy_en"]
    ledger = json.loads((next(iter(cells(tmp_path).values())) / "ledger.json").read_text())
    assert [row["source"] for row in ledger["rows"]] == ["toy_en"], "nothing of the other mix got in"
    assert f"{cell.name}: " in err


def test_results_that_cannot_be_written_are_one_sentence(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    _, err = train("data=toy_zh", *QUICK, f"paths.outputs={blocked}", code=2)
    assert "a folder that results can be written to; try paths.outputs=" in err
    assert "Traceback" not in err
