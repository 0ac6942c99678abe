"""Checkpoints that are whole or absent, and proved whole before they are used.

Written beside their final name on the same disk, fsynced, renamed; with a digest that is checked on loading. Two are kept, so that
a damaged newest one costs some steps and not the run. They are read with `weights_only=True`: loading one runs no code.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer

from babeltune.results import sync_folder, writing

log = logging.getLogger(__name__)

KEPT = 2


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's reading and writing of checkpoint files, made safe."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        target = Path(path)
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        data = buffer.getvalue()
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.tmp")
            try:
                with open(temporary, "wb") as file:
                    file.write(hashlib.sha256(data).digest() + data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(target.parent)

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> dict[str, Any]:
        data = _sound(Path(path))
        assert data is not None, f"{path} was checked before it was chosen"
        loaded: dict[str, Any] = torch.load(io.BytesIO(data), map_location=map_location or "cpu", weights_only=True)
        return loaded

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def newest_sound(folder: Path) -> Path | None:
    """The latest checkpoint that is as it was written, or None. Damaged ones are named in the log and passed over."""
    for path in sorted(folder.glob("step-*.ckpt"), reverse=True):
        if _sound(path) is not None:
            return path
        log.warning("%s is damaged; going back to the checkpoint before it", path)
    return None


def _sound(path: Path) -> bytes | None:
    """A checkpoint's content, or None when a bit of it is not as it was written."""
    raw = path.read_bytes()
    digest, data = raw[:32], raw[32:]
    return data if hashlib.sha256(data).digest() == digest else None


class Checkpointing(Callback):
    """Saves every so many steps and when the run is asked to stop; keeps the last two."""

    def __init__(self, folder: Path, every: int) -> None:
        self._folder = folder
        self._every = every

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % self._every == 0:
            self.save(trainer)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        # Only a request to stop comes between steps; after an error the weights may be anything.
        if type(exception).__name__ in ("SIGTERMException", "KeyboardInterrupt") and trainer.global_step:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        path = self._folder / f"step-{trainer.global_step:08d}.ckpt"
        if not path.exists():
            trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            for old in sorted(self._folder.glob("step-*.ckpt"))[:-KEPT]:
                old.unlink()


class Fingerprint(Callback):
    """Before the first step, every process of a cell proves that it runs the same cell on the same data."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self._digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.world_size == 1:
            return
        told: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(told, self._digest)
        if len(set(told)) > 1:
            raise RuntimeError(f"the {trainer.world_size} processes of this cell do not run the same cell: {told}")


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
