"""Whole cells: trained by Lightning, stopped, taken up again, and answered with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from babeltune import runner
from babeltune.results import RunResult
from babeltune.training.module import CausalLMModule
from tests.training import jobs

CELLS = {
    "adalora": ("adapter.initial_rank=6", "adapter.target_rank=3"),
    "p_tuning": ("data.layout=padded", "adapter.tokens=5", "adapter.hidden=16"),
    "prefix": ("data.layout=padded", "adapter.tokens=5", "adapter.hidden=16"),
    "sadapter_h": (),
    "embeddings": (),
}
JUDGED = ("evaluation=toy", "evaluation.max_items=4", "decoding.max_new_tokens=4")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    outputs = tmp_path_factory.mktemp("outputs")
    jobs.write_base(outputs)
    random = torch.get_rng_state()
    yield outputs
    torch.set_rng_state(random)


@pytest.mark.parametrize("kind", list(CELLS))
def test_a_cell_that_was_stopped_ends_with_the_same_adapter_to_the_last_bit(
    kind: str, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [word for word in jobs.OVERRIDES if not word.startswith(("adapter", "evaluation"))]
    config = jobs.compose(
        [*overrides, f"model.path={outputs / 'base'}", f"paths.outputs={outputs}", f"adapter={kind}", *CELLS[kind], *JUDGED]
    )
    whole = runner.run(config)
    folder = outputs / whole.cell
    name = next((folder / "adapter").glob("adapter*.safetensors")).name
    trained, losses = (folder / "adapter" / name).read_bytes(), _losses(folder)
    shutil.rmtree(folder)
    with monkeypatch.context() as patched:
        patched.setattr(CausalLMModule, "training_step", CausalLMModule.training_step)  # put back afterwards
        jobs.AtStep(7, jobs.terminate_me)()
        with pytest.raises(runner.Preempted):
            runner.run(config)
    again = runner.run(config)
    assert again.training["resumed_at"] == 8
    assert (folder / "adapter" / name).read_bytes() == trained
    assert _losses(folder) == losses
    assert _scores(again) == _scores(whole)
    assert ("train/orthogonality" in (folder / "metrics.jsonl").read_text()) == (kind == "adalora")


def _losses(folder: Path) -> list[str]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [f"{line['step']} {key} {value.hex()}" for line in lines for key, value in line.items() if "train/loss" in key]


def _scores(result: RunResult) -> dict[str, float | None]:
    return {name: score.value for name, score in result.scores.items()}
