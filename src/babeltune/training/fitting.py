"""Lightning's Trainer, set up for one cell."""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from babeltune import devices
from babeltune.data.batching import Examples
from babeltune.data.datamodule import MixDataModule
from babeltune.errors import ConfigError
from babeltune.modeling import attention, blocks
from babeltune.modeling.pieces import join
from babeltune.options import Accelerator, Precision, RunConfig, TrainerConfig
from babeltune.options import Strategy as StrategyName
from babeltune.training import checkpoints, sharding
from babeltune.training.callbacks import Checkpointing, Reporting, SameCell
from babeltune.training.module import CausalLMModule
from babeltune.training.tracking import Tracker

log = logging.getLogger(__name__)

EMPTY_WARNINGS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own use of torch
    "The `srun` command is available on your system but is not used",  # a login node, or one cell on a machine of a cluster
    "The '.*_dataloader' does not have many workers",  # examples lie ready on disk: workers bring nothing
)


class Stopped(Exception):
    """Training was asked to stop and has written a checkpoint to go on from."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What training did."""

    steps: int
    first_step: int
    """Where this process began: 0, or the step of the checkpoint it went on from."""
    seconds: float
    """Of the steps done here."""
    tokens: int
    """Of the steps done here, over all processes, without padding."""
    losses: tuple[float, ...]
    """Of every step of the run, those before a checkpoint included. Known to the first rank."""
    is_first_rank: bool


def fit(
    model: Any,
    examples: Examples,
    sources: list[str],
    config: RunConfig,
    *,
    pad_id: int,
    folder: Path,
    parts: Mapping[str, Any],
    tracker: Tracker,
    tell: Callable[..., None],
) -> Trained:
    """Train to the last step, from the newest sound checkpoint when there is one. The model is changed in place.

    The number of processes may be another one than before a checkpoint: the examples of each step stay the same, and so do the
    sums to rounding, but what dropout draws does not. `parts` is what the
    cell's identity is made of.

    Raises Stopped after SIGTERM or Ctrl-C, with a checkpoint written.
    """
    model.train()  # models are loaded in evaluation mode, and Lightning leaves them in it: dropout would do nothing
    kind = attention.choose(model, config)
    data = MixDataModule(
        examples,
        data=config.data,
        optimizer=config.optimizer,
        trainer=config.trainer,
        seed=config.seed,
        pad_id=pad_id,
        rowing=attention.rowing(model, kind, config.trainer.accelerator),
    )
    total = data.plan.total_steps
    module = CausalLMModule(model, optimizer=config.optimizer, total_steps=total, seed=config.seed, sources=sources)
    newest = checkpoints.newest_sound(folder / "checkpoints")
    first_step = checkpoints.step_of(newest) if newest else 0
    checkpointing = Checkpointing(folder / "checkpoints", config.trainer.checkpoint_steps, tracker)
    same = SameCell({"cell": dict(parts), "steps": total, "from": first_step, "data": data.plan.digest})
    log.info("training %d steps from step %d, %d examples", total, first_step, len(examples))
    tracker.rewind(first_step)
    started = time.monotonic()
    with _quiet(), attention.attending(model, kind), blocks.prepared(model, config.trainer):
        trainer = build_trainer(config, total, parts, tracker, [same, checkpointing, Reporting(tell)])
        trainer.fit(module, datamodule=data, ckpt_path=str(newest) if newest else None, weights_only=True)
    if checkpointing.has_stopped:
        raise Stopped(f"stopped at step {trainer.global_step} of {total}")
    assert trainer.global_step == total, f"training ended at step {trainer.global_step} of {total}"
    join(model)
    return Trained(
        steps=total,
        first_step=first_step,
        seconds=time.monotonic() - started,
        tokens=module.num_tokens,
        losses=_reconciled(tracker, total) if trainer.is_global_zero else (),
        is_first_rank=trainer.is_global_zero,
    )


def build_trainer(config: RunConfig, total: int, parts: Mapping[str, Any], tracker: Tracker, callbacks: list[Callback]) -> Trainer:
    return Trainer(
        accelerator=config.trainer.accelerator.value,
        devices=config.trainer.devices,
        num_nodes=config.trainer.nodes,
        strategy=_strategy(config.trainer, config.optimizer.clip),
        precision="bf16-mixed" if config.precision.kind is Precision.bf16 else "32-true",
        max_steps=total,
        logger=tracker,
        log_every_n_steps=1,
        callbacks=callbacks,
        # Whoever starts us says so in the environment; a cluster's own variables are for its own processes.
        plugins=[checkpoints.AtomicCheckpointIO(parts), LightningEnvironment()],
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _strategy(trainer: TrainerConfig, clip: float | None) -> Strategy | str:
    match trainer.strategy:
        case StrategyName.single:
            return SingleDeviceStrategy("cpu") if trainer.accelerator is Accelerator.cpu else "auto"
        case StrategyName.ddp:
            return DDPStrategy(process_group_backend="gloo" if trainer.accelerator is Accelerator.cpu else "nccl")
        case StrategyName.fsdp:
            return sharding.ShardedStrategy(trainer.processes)
        case StrategyName.deepspeed:
            from babeltune.training import zero

            return zero.ZeroStrategy(clip=clip)
        case other:
            assert_never(other)


def check_devices(trainer: TrainerConfig) -> None:
    """Refuse a GPU or a package that is not there."""
    wanted = trainer.devices if trainer.accelerator is Accelerator.gpu else 0
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted > there:
        raise ConfigError(devices.too_few(trainer, there))
    if trainer.strategy is StrategyName.deepspeed:
        from babeltune.training import zero

        zero.check_installed()


def end_process_group() -> None:
    """Leave the group that a cell of several processes trained in."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _reconciled(tracker: Tracker, total: int) -> tuple[float, ...]:
    """The loss of every step as it stands on disk, after a look that none is missing."""
    tracker.sync()
    losses = {line["step"]: line["train/loss"] for line in tracker.lines() if "train/loss" in line}
    if sorted(losses) != list(range(1, total + 1)):
        log.warning("%s has the losses of %d steps, not of %d; the trained weights are right", tracker.path, len(losses), total)
    return tuple(losses[step] for step in sorted(losses))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's tips, inventories of the machine and warnings about itself out of the log."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in EMPTY_WARNINGS:
            warnings.filterwarnings("ignore", message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
