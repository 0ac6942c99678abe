"""Checkpoint files that are whole or absent, and proved whole before they are used.

Written beside their final name on the same disk, fsynced, renamed; with a digest in front that is checked on reading. They are
read with `weights_only=True`: loading one runs no code.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from babeltune.errors import ModelError, problem
from babeltune.results import sync_folder, writing

log = logging.getLogger(__name__)

KEPT = 2
"""Checkpoints of a cell. A damaged newest one costs some steps and not the run."""
SHOWN = 3
"""Things that differ from another cell's, named in a refusal."""
DIGEST_BYTES = hashlib.sha256().digest_size


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's reading and writing of checkpoint files, made safe.

    `parts` is what the cell's identity is made of. It is written into every checkpoint, and one of another cell is refused.
    """

    def __init__(self, parts: Mapping[str, Any]) -> None:
        super().__init__()
        self._parts = dict(parts)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Raises OutputError when the file cannot be written; what was there before is then as it was."""
        buffer = io.BytesIO()
        torch.save(checkpoint | {"cell": json.dumps(self._parts)}, buffer)
        data = buffer.getbuffer()
        target = Path(path)
        temporary = target.with_name(f".{target.name}.tmp")
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(temporary, "wb") as file:
                    file.write(hashlib.sha256(data).digest())
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(target.parent)

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Raises ModelError when the file is not one of ours, or one of another cell."""
        data = _sound(Path(path))
        if data is None:
            raise ModelError(_foreign(path, "a file that is not as it was written"))
        try:
            loaded: dict[str, Any] = torch.load(io.BytesIO(data), map_location=map_location or "cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ModelError(_foreign(path, "a file that holds more than tensors")) from error
        if differing := list(_differing(json.loads(loaded.get("cell", "{}")), json.loads(json.dumps(self._parts)))):
            more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
            got = f"a checkpoint of another cell ({', '.join(differing[:SHOWN])}{more})"
            raise ModelError(problem(str(path), got, "one of this cell", "removing it; training begins anew"))
        return loaded

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def _differing(theirs: Any, ours: Any, where: str = "") -> Iterator[str]:
    """What is another in one tree than in the other, by its dotted name."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted(theirs.keys() | ours.keys()):
            yield from _differing(theirs.get(key), ours.get(key), f"{where}.{key}" if where else key)
    elif theirs != ours:
        yield f"{where} {theirs} there, {ours} here"


def place(folder: Path, step: int) -> Path:
    """The file of a step's checkpoint. Names sort as their steps do."""
    return folder / f"step-{step:08d}.ckpt"


def step_of(path: Path) -> int:
    """How many steps were done when a checkpoint was written."""
    return int(path.stem.removeprefix("step-"))


def newest_sound(folder: Path) -> Path | None:
    """The latest checkpoint that is as it was written, or None. Damaged ones are named in the log and passed over."""
    for path in sorted(folder.glob("step-*.ckpt"), reverse=True):
        if _sound(path) is not None:
            return path
        log.warning("%s is damaged; going back to what was before it", path)
    return None


def clear(folder: Path, step: int) -> None:
    """Remove what a crash left in the way of a run that goes on from `step`: damaged later checkpoints, half-written files."""
    for path in folder.glob("step-*.ckpt"):
        if step_of(path) > step:
            path.unlink()
    for path in folder.glob(".step-*.tmp"):
        path.unlink()


def rotate(folder: Path) -> None:
    """Keep the newest few."""
    for path in sorted(folder.glob("step-*.ckpt"))[:-KEPT]:
        path.unlink()


def _sound(path: Path) -> memoryview | None:
    """A checkpoint's content, or None when a bit of it is not as it was written."""
    raw = memoryview(path.read_bytes())
    digest, data = raw[:DIGEST_BYTES], raw[DIGEST_BYTES:]
    return data if hashlib.sha256(data).digest() == digest else None


def _foreign(path: Any, got: str) -> str:
    return problem(str(path), got, "a checkpoint that this program wrote", "removing it; training goes on from the one before")
