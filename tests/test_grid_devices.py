"""Which GPUs the cells of a grid are given, on machines that need not have any."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from babeltune import compose, devices, grid
from babeltune.cells import Cell, cell_of
from babeltune.grid import Group
from babeltune.progress import Standing


def cell(*overrides: str, trainer: str = "gpu") -> Cell:
    return cell_of(compose(["data=toy_zh", "model=tiny_fresh", "evaluation=none", f"trainer={trainer}", *overrides]))


@pytest.fixture
def groups() -> Iterator[list[Group]]:
    started: list[Group] = []
    yield started
    for group in started:
        group.stop()
        grid._reap(group)


def hand_out(cells: list[Cell], groups: list[Group], visible: list[str], workers: int | None = None) -> list[Standing]:
    standings = [Standing(one, "waiting") for one in cells]
    grid._hand_out(standings, groups, queue.Queue(), grid._width(cells, workers, visible), visible)
    return standings


def seen(group: Group) -> list[str | None]:
    """What the processes of a group have in their environment."""
    found = []
    for process in group.processes:
        lines = Path(f"/proc/{process.pid}/environ").read_text().split("\0")
        found.append(next((line.partition("=")[2] for line in lines if line.startswith("CUDA_VISIBLE_DEVICES=")), None))
    return found


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("0,1", ["0", "1"]),
        ("3, 5", ["3", "5"]),
        ("", []),
        ("-1", []),
        ("1,-1,0", ["1"]),
        ("GPU-8f3a,GPU-11c2", ["GPU-8f3a", "GPU-11c2"]),
    ],
)
def test_what_the_environment_says_counts(said: str, expected: list[str]) -> None:
    assert devices.gpus({"CUDA_VISIBLE_DEVICES": said}) == expected


LISTED = {
    "whole": ("GPU 0: NVIDIA A100 (UUID: GPU-aa)\nGPU 1: NVIDIA A100 (UUID: GPU-bb)\n", ["0", "1"]),
    "parts": ("GPU 0: NVIDIA A100 (UUID: GPU-aa)\n  MIG 3g.20gb Device 0: (UUID: MIG-cc)\n  MIG 3g.20gb Device 1: (UUID: MIG-dd)\n",
              ["MIG-cc", "MIG-dd"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", LISTED)
def test_else_nvidia_smi_is_asked(kind: str, tmp_path: Path) -> None:
    listing, expected = LISTED[kind]
    (tmp_path / "listing").write_text(listing)
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\n[ "$1" = -L ] && cat {tmp_path / "listing"}\n')
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        assert devices.gpus({"PATH": f"{tmp_path}:/usr/bin:/bin"}) == expected


def test_a_machine_without_the_program_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.gpus({"PATH": str(tmp_path)}) == []


def test_each_cell_of_a_grid_sees_a_device_of_its_own(groups: list[Group]) -> None:
    standings = hand_out([cell(f"seed={seed}") for seed in range(3)], groups, ["4", "7"])
    assert [seen(group) for group in groups] == [["4"], ["7"]]
    assert [standing.state for standing in standings] == ["running", "running", "waiting"]


def test_cells_of_several_devices_share_none(groups: list[Group]) -> None:
    two = ["trainer.devices=2", "trainer.strategy=ddp"]
    hand_out([cell(*two), cell(*two, "seed=1"), cell(*two, "seed=2")], groups, ["0", "1", "2", "3"])
    assert [seen(group) for group in groups] == [["0,1"] * 2, ["2,3"] * 2]


def test_more_workers_than_devices_share_them_evenly(groups: list[Group]) -> None:
    hand_out([cell(f"seed={seed}") for seed in range(4)], groups, ["0", "1"], workers=4)
    assert sorted(map(str, map(seen, groups))) == ["['0']"] * 2 + ["['1']"] * 2


def test_on_a_cpu_nothing_is_said_of_devices(groups: list[Group], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    hand_out([cell(trainer="cpu")], groups, [])
    assert [seen(group) for group in groups] == [[None]]


def test_a_worker_that_is_free_is_given_a_cell_of_the_base_it_has(groups: list[Group]) -> None:
    other = "model.fresh.hidden_size=64"
    cells = [cell(trainer="cpu"), cell(other, trainer="cpu"), cell("optimizer.learning_rate=1e-4", trainer="cpu")]
    standings = hand_out(cells, groups, [], workers=1)
    assert [standing.state for standing in standings] == ["running", "waiting", "waiting"]
    standings[0].state, groups[0].standing = "done", None
    grid._hand_out(standings, groups, queue.Queue(), 1, [])
    assert [standing.state for standing in standings] == ["done", "waiting", "running"]
    assert len(groups) == 1


def test_a_cell_that_quantises_gets_a_worker_that_can(groups: list[Group], tmp_path: Path) -> None:
    plain = cell(trainer="cpu")
    path = tmp_path / "base"
    path.mkdir()
    (path / "config.json").write_text("{}")
    four_bits = cell("precision=nf4", "model.fresh=null", f"model.path={path}", "model.tokenizer=null", trainer="cpu")
    standings = hand_out([plain, four_bits], groups, [], workers=1)
    (first,) = groups
    standings[0].state, first.standing = "done", None
    grid._hand_out(standings, groups, queue.Queue(), 1, [])
    commands = [Path(f"/proc/{group.processes[0].pid}/cmdline").read_text().split("\0")[1:-1] for group in groups]
    assert commands == [["-m", "babeltune.worker"]]
    assert first.processes[0].poll() == 0, "the worker that cannot has ended: there is room for one"
