"""The clock as a callback of Lightning's, for babeltune. It takes losses and tokens from what the product itself logs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from peers import task
from peers.clock import Clock, peak_rss


class Clocked(Callback):
    def __init__(self) -> None:
        self._clock = Clock()

    def on_train_start(self, trainer: Any, module: Any) -> None:
        task.start_alike(module, task.read())

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self._clock.begin()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._clock.tick()

    def on_train_end(self, trainer: Any, module: Any) -> None:
        self._clock.end(peak_beside=_peak_of_parent())
        for line in Path(trainer.logger.path).read_text(encoding="utf-8").splitlines():
            found = json.loads(line)
            useful, targets = int(found["train/tokens"]), int(found["train/target_tokens"])
            self._clock.micro(found["train/loss"], targets, useful, useful)
            self._clock.step()
        self._clock.write()


def _peak_of_parent() -> int:
    """The command that was typed waits in a process of its own, and holds memory too."""
    parent = os.getppid()
    command = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")
    return peak_rss(parent) if any(word.endswith(b"train.py") for word in command) else 0
