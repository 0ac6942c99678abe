"""What happens around the steps: every process proves that it runs the same cell, checkpoints are written, watchers are told."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from babeltune.errors import ConfigError, problem
from babeltune.training import checkpoints
from babeltune.training.tracking import Tracker


class SameCell(Callback):
    """Before the first step, every process of a cell proves that it runs the same cell on the same data from the same step."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self._digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.world_size == 1:
            return
        told: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(told, self._digest)
        if len(set(told)) > 1:
            raise ConfigError(
                problem(
                    "trainer.devices",
                    f"{trainer.world_size} processes that would not train the same ({', '.join(digest[:8] for digest in told)})",
                    "one cell, the same data and the same checkpoint in each",
                    "one command line, one paths.data and one paths.outputs for all",
                )
            )


ENDING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""Signals that ask a run to stop: SIGTERM and Slurm's SIGUSR1 before it takes a machine back, and Ctrl-C."""


class Checkpointing(Callback):
    """Writes a checkpoint every so many steps, and after the step during which one of ENDING came; then training ends.

    A second Ctrl-C acts at once.
    """

    def __init__(self, folder: Path, every: int, tracker: Tracker) -> None:
        self._folder = folder
        self._every = every
        self._tracker = tracker
        self._former: dict[int, Any] = {}
        self._is_asked = False
        self.has_stopped = False
        """Whether training ended because it was asked to."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.is_global_zero:
            checkpoints.clear(self._folder, trainer.global_step)
        if threading.current_thread() is threading.main_thread():
            # Set after Lightning has set its own, which ends a process in the middle of what other ranks wait for.
            self._former = {number: signal.signal(number, self._ask) for number in ENDING}

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.has_stopped = self._is_anyone_asked(trainer, module)
        if self.has_stopped or trainer.global_step % self._every == 0:
            self._save(trainer)
        trainer.should_stop = self.has_stopped

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._listen_no_more()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._listen_no_more()

    def _ask(self, number: int, frame: object) -> None:
        if self._is_asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._is_asked = True

    def _listen_no_more(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def _is_anyone_asked(self, trainer: Trainer, module: LightningModule) -> bool:
        """Whether any process was asked to stop: all of them end after the same step."""
        if trainer.world_size == 1:
            return self._is_asked
        asked = torch.tensor(int(self._is_asked), device=module.device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        return bool(asked)

    def _save(self, trainer: Trainer) -> None:
        self._tracker.sync()  # the numbers of a step are on the disk before a checkpoint says that it was done
        trainer.save_checkpoint(checkpoints.place(self._folder, trainer.global_step), weights_only=False)
        if trainer.is_global_zero:
            checkpoints.rotate(self._folder)


class Reporting(Callback):
    """Tells whoever watches how far training is."""

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._say(trainer, module)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._say(trainer, module)

    def _say(self, trainer: Trainer, module: LightningModule) -> None:
        losses: list[float] = getattr(module, "losses", [])
        note = f"loss {losses[-1]:.3f}" if losses else ""
        self._tell("progress", phase="training", done=trainer.global_step, total=trainer.max_steps, note=note)
