"""ZeRO-2 on two processes trains what one process trains, and goes on from whole tensors.

DeepSpeed runs on the CPU for tests alone: `jobs.OnCpu` takes the place of the strategy's check for a GPU.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from babeltune import compose
from babeltune.errors import ConfigError
from babeltune.training import zero
from tests.training import jobs
from tests.training.conftest import Start, Started, adapter, losses, metrics

IS_THERE = importlib.util.find_spec("deepspeed") is not None
TWO = ("trainer=ddp_cpu", "trainer.micro_tokens=448", "trainer.checkpoint_steps=100")
UNDROPPED = ("adapter.dropout=0.0", "optimizer.clip=0.05")

Ranks = Callable[..., list[Started]]


@pytest.mark.skipif(IS_THERE, reason="DeepSpeed is installed")
def test_without_deepspeed_its_extra_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        zero.check_installed()
    assert str(caught.value) == (
        "trainer.strategy=deepspeed: got no DeepSpeed (No module named 'deepspeed'); expected the package; "
        "try pip install '.[deepspeed]', or trainer=fsdp"
    )


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_quantised_weights_are_refused(precision: str) -> None:
    with pytest.raises(ConfigError, match=f"precision={precision} with trainer=deepspeed: got quantised weights"):
        compose(["data=toy_zh", "trainer=deepspeed", f"precision={precision}"])


@pytest.mark.skipif(not IS_THERE, reason="needs pip install '.[deepspeed]'")
def test_two_processes_of_zero_train_what_one_trains_and_go_on(
    start: Start, start_ranks: Ranks, whole: Path, tmp_path: Path
) -> None:
    one, stopped, straight = (tmp_path / name for name in ("one", "stopped", "straight"))
    for outputs in (one, stopped, straight):
        outputs.mkdir()
        (outputs / "base").symlink_to(whole / "base")
    single = start(jobs.train, one, UNDROPPED)
    assert single.code() == 0, single.said
    for rank in start_ranks(2, jobs.train, straight, TWO + UNDROPPED, sabotage=jobs.OnCpu()):
        assert rank.code() == 0, rank.said
    for ours, theirs in zip(metrics(straight), metrics(one), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6 if ours["step"] == 1 else 1e-3)
    weights, wanted = load(adapter(straight)), load(adapter(one))
    assert all(torch.allclose(weights[name], wanted[name], atol=2e-3) for name in wanted)

    asked = jobs.Both(jobs.OnCpu(), jobs.AtStep(4, jobs.terminate_me, rank=1))
    for rank in start_ranks(2, jobs.train, stopped, TWO + UNDROPPED, sabotage=asked):
        assert rank.code() == jobs.PREEMPTED, rank.said
    alone = tmp_path / "alone"
    shutil.copytree(stopped, alone, symlinks=True)
    for rank in start_ranks(2, jobs.train, stopped, TWO + UNDROPPED, sabotage=jobs.OnCpu()):
        assert rank.code() == 0, rank.said
    assert losses(stopped) == losses(straight)
    assert adapter(stopped) == adapter(straight)
    single = start(jobs.train, alone, UNDROPPED)
    assert single.code() == 0, single.said
    assert [line["train/loss"] for line in metrics(alone)] == pytest.approx([line["train/loss"] for line in metrics(one)], rel=1e-3)
