"""Two processes train each kind of adapter as one does: the same gradients, the same weights in both, the same cuts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from babeltune.alternatives import ALTERNATIVES
from babeltune.options import AdapterConfig
from tests.training import jobs
from tests.training.conftest import Started, places

STEPS = 3
SHORT = (f"optimizer.max_steps={STEPS}", "trainer.checkpoint_steps=100")
LOW_RANK = ("adapter.dropout=0.0",)
VIRTUAL = ("adapter.tokens=5", "data.layout=padded")
CELLS: dict[str, tuple[str, ...]] = {
    "none": (),
    "lora": LOW_RANK,
    "rslora": LOW_RANK,
    "dora": LOW_RANK,
    "adalora": (*LOW_RANK, "adapter.initial_rank=6", "adapter.target_rank=3"),
    "prompt": VIRTUAL,
    "p_tuning": (*VIRTUAL, "adapter.hidden=16"),
    "prefix": (*VIRTUAL, "adapter.hidden=16"),
    "sadapter_p": (),
    "sadapter_h": (),
    "padapter": (),
    "ia3": (),
    "embeddings": (),
}
TWO = ("trainer=ddp_cpu", "trainer.micro_tokens=448", "trainer.checkpoint_steps=100")

Tensors = dict[str, torch.Tensor]


def test_every_kind_is_tested() -> None:
    assert CELLS.keys() == ALTERNATIVES[AdapterConfig].keys()


@pytest.fixture(scope="module")
def notes(server: Any, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gradients and weights of each kind, step and process: below `one` and `two`, as `jobs.Gradients` keeps them."""
    folder = tmp_path_factory.mktemp("notes")
    started = []
    for name, more, environments in (("one", (), [{}]), ("two", TWO, places(2))):
        (folder / name).mkdir()
        (folder / name / "base").symlink_to(whole / "base")
        cells = tuple((f"adapter={kind}", *own, *SHORT, *more) for kind, own in CELLS.items())
        for rank, environment in enumerate(environments):
            log = folder / f"{name}-{rank}.txt"
            told = {"log": log, "environment": environment, "sabotage": jobs.Gradients(folder / name / "notes")}
            process = server.Process(target=jobs.train_each, args=(folder / name, cells), kwargs=told)
            process.start()
            started.append(Started(process, log))
    for one in started:
        assert one.code(300) == 0, one.said
    return folder


def _noted(folder: Path, kind: str, step: int, rank: int, what: str) -> Tensors:
    noted: Tensors = torch.load(folder / "notes" / f"{kind}-{step}-{rank}.{what}.pt", weights_only=True)
    return noted


@pytest.mark.parametrize("kind", list(CELLS))
def test_the_gradient_of_two_processes_is_that_of_one(kind: str, notes: Path) -> None:
    one, two = (_noted(notes / name, kind, 0, 0, "gradients") for name in ("one", "two"))
    assert one.keys() == two.keys()
    size = sum(float(part.square().sum()) for part in one.values()) ** 0.5
    off = sum(float((two[name] - part).square().sum()) for name, part in one.items()) ** 0.5
    assert size > 0
    assert off < 1e-5 * size  # sums in another order


@pytest.mark.parametrize("kind", list(CELLS))
def test_both_processes_hold_the_same_bits_at_every_step(kind: str, notes: Path) -> None:
    for step in range(STEPS):
        for what in ("weights", "gradients"):
            first, second = (_noted(notes / "two", kind, step, rank, what) for rank in (0, 1))
            assert first.keys() == second.keys()
            assert all(torch.equal(part, second[name]) for name, part in first.items()), f"{what} of step {step}"


@pytest.mark.parametrize("kind", list(CELLS))
def test_the_losses_of_two_processes_are_those_of_one(kind: str, notes: Path) -> None:
    one, two = (_losses(notes / name, kind) for name in ("one", "two"))
    assert len(one) == STEPS
    assert one == pytest.approx(two, rel=1e-4)  # a step of AdamW turns a rounding of a tiny gradient into one of the rate


def _losses(outputs: Path, kind: str) -> list[float]:
    (path,) = outputs.glob(f"*-tiny-{kind}-*/metrics.jsonl")
    return [json.loads(line)["train/loss"] for line in path.read_text().splitlines()]


def test_the_entries_that_adalora_cuts_are_the_same_in_both_processes_and_as_in_one(notes: Path) -> None:
    last = STEPS - 1
    single = _noted(notes / "one", "adalora", last, 0, "weights")
    kept = {name: part != 0 for name, part in single.items() if "lora_E" in name}
    assert any(not bool(entries.all()) for entries in kept.values()), "something has been cut"
    for rank in (0, 1):
        shared = _noted(notes / "two", "adalora", last, rank, "weights")
        assert all(torch.equal(shared[name] != 0, entries) for name, entries in kept.items())
