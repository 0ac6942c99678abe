"""What a step refuses, and what training tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from babeltune.errors import ConfigError, ModelError
from babeltune.modeling.adapters import load_trainable
from babeltune.options import Accelerator, TrainerConfig
from babeltune.training.fitting import check_devices
from tests.training import jobs
from tests.training.conftest import Start, cell_folder, losses, metrics


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (jobs.spoil_a_weight, "step 4: got a loss of nan; expected a finite one"),
        (jobs.spoil_the_gradient, "step 4: got a gradient norm of nan; expected a finite one"),
    ],
)
def test_a_number_that_is_none_ends_training_before_it_changes_a_weight(
    start: Start, untrained: Path, whole: Path, spoil: object, sentence: str
) -> None:
    running = start(jobs.train, untrained, sabotage=jobs.AtStep(4, spoil))
    assert running.code() == jobs.REFUSED, running.said
    assert sentence in running.said
    assert [path.name for path in (cell_folder(untrained) / "checkpoints").iterdir()] == ["step-00000003.ckpt"]
    assert len(metrics(untrained)) == 4
    assert not (cell_folder(untrained) / "adapter").exists()
    assert start(jobs.train, untrained).code() == 0
    assert losses(untrained) == losses(whole)


def test_an_interrupted_cell_tells_of_its_whole_training(start: Start, untrained: Path, whole: Path) -> None:
    assert start(jobs.train, untrained, sabotage=jobs.AtStep(7, jobs.kill_me)).code() != 0
    assert start(jobs.train, untrained).code() == 0
    facts, plain = (json.loads((cell_folder(outputs) / "trained.json").read_text()) for outputs in (untrained, whole))
    assert (facts["resumed_at"], plain["resumed_at"]) == (6, 0)
    assert facts["first_loss"] == plain["first_loss"] == metrics(whole)[0]["train/loss"]
    assert facts["last_loss"] == plain["last_loss"] == metrics(whole)[-1]["train/loss"]
    assert plain["tokens"] == sum(line["train/tokens"] for line in metrics(whole))


def test_the_loss_of_a_step_is_the_mean_over_the_tokens_of_its_sources(whole: Path) -> None:
    """Summed over sources in proportion to their targets; the counts are not in the file, so bounds are what can be seen."""
    for line in metrics(whole):
        sources = [value for key, value in line.items() if key.startswith("train/loss_")]
        assert min(sources) <= line["train/loss"] <= max(sources)


def test_tensors_that_are_not_the_trained_ones_are_refused() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(False)
    own = {"1.weight": torch.ones(2, 2), "1.bias": torch.ones(2)}
    load_trainable(model, own)
    assert model[1].weight.sum() == 4
    for wrong in (own | {"0.weight": torch.ones(2, 2)}, {"1.bias": own["1.bias"]}, own | {"1.bias": torch.ones(3)}):
        with pytest.raises(ModelError, match="checkpoint: got tensors that differ from the model's"):
            load_trainable(model, wrong)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    trainer = TrainerConfig(name="gpu", accelerator=Accelerator.gpu)
    with pytest.raises(ConfigError, match="trainer=gpu: got 0 GPUs on this machine; expected 1; try trainer=cpu"):
        check_devices(trainer)
