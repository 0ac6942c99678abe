"""A model in pieces on two processes trains what one process trains, and is whole again on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training import jobs
from tests.training.conftest import Start, Started, adapter, losses, metrics, places, untrained_copy

STEPS = 3
SHORT = (f"optimizer.max_steps={STEPS}", "trainer.checkpoint_steps=100")
PIECES = ("trainer=fsdp_cpu", "trainer.micro_tokens=448", "trainer.checkpoint_steps=100")
CELLS: dict[str, tuple[str, ...]] = {
    "lora": ("adapter=lora", "adapter.dropout=0.0"),
    "dora": ("adapter=dora", "adapter.dropout=0.0"),
    "none": ("adapter=none",),
}
"""Cells by the kind of adapter."""
HALF = (0.45, 0.55)
"""What one of two processes holds; not every matrix has an even number of rows."""

Ranks = Callable[..., list[Started]]


@pytest.fixture(scope="module")
def trained(server: Any, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each cell, below `one` trained by one process and below `two` in pieces by two, which note what they hold."""
    folder = tmp_path_factory.mktemp("sharded")
    started = []
    for name, more, environments in (("one", (), [{}]), ("two", PIECES, places(2))):
        (folder / name).mkdir()
        (folder / name / "base").symlink_to(whole / "base")
        cells = tuple((*own, *SHORT, *more) for own in CELLS.values())
        for rank, environment in enumerate(environments):
            told = {"log": folder / f"{name}-{rank}.txt", "environment": environment}
            sabotage = jobs.Holdings(folder / f"{name}-{rank}.jsonl")
            process = server.Process(target=jobs.train_each, args=(folder / name, cells), kwargs=told | {"sabotage": sabotage})
            process.start()
            started.append(Started(process, told["log"]))
    for one in started:
        assert one.code(200) == 0, one.said
    return folder


def _losses(outputs: Path, kind: str) -> list[float]:
    (path,) = outputs.glob(f"*-tiny-{kind}-*/metrics.jsonl")
    return [json.loads(line)["train/loss"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("kind", list(CELLS))
def test_a_model_in_pieces_has_the_losses_of_a_whole_one(kind: str, trained: Path) -> None:
    one, two = (_losses(trained / name, kind) for name in ("one", "two"))
    assert len(one) == STEPS
    assert one == pytest.approx(two, rel=1e-5)


def test_each_of_two_processes_holds_half_of_weights_and_optimizer(trained: Path) -> None:
    (one,) = (_held(trained / f"one-{rank}.jsonl") for rank in (0,))
    for kind, mine in enumerate(zip(*(_held(trained / f"two-{rank}.jsonl") for rank in (0, 1)), strict=True)):
        for what in ("weights", "optimizer"):
            assert sum(held[what] for held in mine) == one[kind][what], "nothing twice, nothing lost"
            assert all(HALF[0] <= held[what] / one[kind][what] <= HALF[1] for held in mine)


def _held(path: Path) -> list[dict[str, int]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _weights(outputs: Path, kind: str) -> dict[str, torch.Tensor]:
    place = "model/model" if kind == "none" else "adapter/adapter_model"
    (path,) = outputs.glob(f"*-tiny-{kind}-*/{place}.safetensors")
    return load_file(path)


@pytest.mark.parametrize("kind", list(CELLS))
def test_what_was_trained_in_pieces_is_whole_on_disk(kind: str, trained: Path) -> None:
    one, two = (_weights(trained / name, kind) for name in ("one", "two"))
    assert {name: part.shape for name, part in one.items()} == {name: part.shape for name, part in two.items()}
    # A step of AdamW turns a rounding of a tiny gradient into a rounding of the rate.
    assert all(torch.allclose(part, two[name], atol=2e-3) for name, part in one.items())


def test_a_run_in_pieces_goes_on_to_the_same_bits_and_in_one_piece_from_the_same_tensors(
    start: Start, start_ranks: Ranks, whole: Path, tmp_path: Path
) -> None:
    straight, stopped = (untrained_copy(whole, tmp_path / name) for name in ("straight", "stopped"))
    for rank in start_ranks(2, jobs.train, straight, PIECES):
        assert rank.code() == 0, rank.said
    note = jobs.AtStep(5, jobs.NoteWeights(tmp_path / "stopped.pt"), rank=None)
    for rank in start_ranks(2, jobs.train, stopped, PIECES, sabotage=jobs.AtStep(4, jobs.terminate_me, rank=1)):
        assert rank.code() == jobs.PREEMPTED, rank.said
    alone = tmp_path / "alone"
    shutil.copytree(stopped, alone)
    for rank in start_ranks(2, jobs.train, stopped, PIECES, sabotage=note):
        assert rank.code() == 0, rank.said
    assert losses(stopped) == losses(straight)
    assert adapter(stopped) == adapter(straight)

    note = jobs.AtStep(5, jobs.NoteWeights(tmp_path / "alone.pt"))
    single = start(jobs.train, alone, ("trainer.checkpoint_steps=100",), sabotage=note)
    assert single.code() == 0, single.said
    two, one = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("stopped", "alone"))
    assert two.keys() == one.keys()
    assert all(torch.equal(two[name], one[name]) for name in one), "what two saved is what one loads"
    assert checkpoint_bytes(one) == 3 * sum(part.numel() * 4 for name, part in one.items() if name.startswith("weight "))
    assert [line["step"] for line in metrics(alone)] == [line["step"] for line in metrics(straight)]


def checkpoint_bytes(tensors: dict[str, torch.Tensor]) -> int:
    """Of the trained weights and both moments of AdamW."""
    return sum(part.numel() * part.element_size() for part in tensors.values() if part.dim())
