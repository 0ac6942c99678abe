"""Lightning's Trainer, set up for one cell."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, SingleDeviceStrategy, Strategy
from lightning.pytorch.utilities.exceptions import SIGTERMException

from babeltune.data.batching import Examples
from babeltune.data.datamodule import MixDataModule
from babeltune.errors import ConfigError, problem
from babeltune.options import Accelerator, Precision, RunConfig
from babeltune.options import Strategy as StrategyName
from babeltune.training.checkpoints import AtomicCheckpointIO, Checkpointing, Fingerprint, Reporting, newest_sound
from babeltune.training.module import CausalLMModule
from babeltune.training.tracking import Tracker

log = logging.getLogger(__name__)


class Stopped(Exception):
    """Training was asked to stop and has written a checkpoint to go on from."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What training did in this process."""

    steps: int
    first_step: int
    """Where it began: 0, or the step of the checkpoint it went on from."""
    seconds: float
    tokens: int
    """Tokens of the steps done here, over all processes, without padding."""
    losses: tuple[float, ...]
    is_first_rank: bool


def fit(
    model: Any,
    examples: Examples,
    sources: list[str],
    config: RunConfig,
    *,
    pad_id: int,
    folder: Path,
    identity: str,
    tracker: Tracker,
    tell: Callable[..., None],
) -> Trained:
    """Train to the last step, from the newest sound checkpoint when there is one. The model is changed in place.

    Raises Stopped after SIGTERM, with a checkpoint written.
    """
    check_devices(config)
    data = MixDataModule(
        examples, data=config.data, optimizer=config.optimizer, trainer=config.trainer, seed=config.seed, pad_id=pad_id
    )
    total = data.plan.total_steps
    module = CausalLMModule(model, optimizer=config.optimizer, total_steps=total, seed=config.seed, sources=sources)
    checkpoints = folder / "checkpoints"
    resumed = newest_sound(checkpoints)
    first_step = int(resumed.stem.removeprefix("step-")) if resumed else 0
    tracker.rewind(first_step)
    trainer = build_trainer(config, total, tracker, [
        Checkpointing(checkpoints, config.trainer.checkpoint_steps),
        Fingerprint({"identity": identity, "steps": total, "examples": examples.lengths.tolist()}),
        Reporting(tell),
    ])
    log.info("training %d steps from step %d, %d examples", total, first_step, len(examples))
    started = time.monotonic()
    try:
        trainer.fit(module, datamodule=data, ckpt_path=str(resumed) if resumed else None, weights_only=True)
    except SIGTERMException as stop:
        raise Stopped(f"stopped at step {trainer.global_step} of {total}") from stop
    if trainer.global_step != total:
        raise AssertionError(f"training ended at step {trainer.global_step} of {total}")
    return Trained(total, first_step, time.monotonic() - started, module.num_tokens, tuple(module.losses), trainer.is_global_zero)


def build_trainer(config: RunConfig, total: int, tracker: Tracker, callbacks: list[Any]) -> Trainer:
    return Trainer(
        accelerator=config.trainer.accelerator.value,
        devices=config.trainer.devices,
        strategy=_strategy(config),
        precision="bf16-mixed" if config.precision.kind is Precision.bf16 else "32-true",
        max_steps=total,
        logger=tracker,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _strategy(config: RunConfig) -> Strategy | str:
    match config.trainer.strategy:
        case StrategyName.single:
            return SingleDeviceStrategy("cpu") if config.trainer.accelerator is Accelerator.cpu else "auto"
        case StrategyName.ddp:
            backend = "gloo" if config.trainer.accelerator is Accelerator.cpu else "nccl"
            return DDPStrategy(process_group_backend=backend)
        case StrategyName.fsdp:
            return FSDPStrategy(use_orig_params=True)


def check_devices(config: RunConfig) -> None:
    """Refuse a GPU that is not there."""
    wanted = config.trainer.devices if config.trainer.accelerator is Accelerator.gpu else 0
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted > there:
        raise ConfigError(problem(f"trainer={config.trainer.name}", f"{there} GPUs on this machine", f"{wanted}", "trainer=cpu or trainer.devices"))


def end_process_group() -> None:
    """Leave the group that a cell of several processes trained in."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


