"""Where numbers go while a cell runs: a fsynced file first, Weights & Biases as its mirror.

A server that is away, a full disk of its own or a bad key costs the mirror, never the run and never a number.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from babeltune.options import LoggerConfig

log = logging.getLogger(__name__)


class Tracker(Logger):
    """Lightning's logger for a cell: `metrics.jsonl`, one line per call, mirrored to a W&B run whose id is the cell's identity."""

    def __init__(self, folder: Path, config: LoggerConfig, *, run_id: str, name: str, group: str, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.path = folder / "metrics.jsonl"
        self._name, self._id = name, run_id
        self._file: Any | None = None
        self._run = _start_wandb(folder, config, run_id, name, group, settings) if config.kind == "wandb" else None

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        return self._id

    @property
    def where(self) -> dict[str, Any]:
        """Where the mirror is: a folder that `wandb sync` sends, or an address."""
        if self._run is None:
            return {"wandb": None}
        return {"wandb": str(Path(self._run.dir).parent), "run_id": self._id, "url": getattr(self._run, "url", None)}

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The config is in the run from the start."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._write({"step": step, **metrics})
        self._mirror(lambda run: run.log(dict(metrics), step=step))

    def rewind(self, step: int) -> None:
        """Forget lines past a checkpoint: the steps are about to be done again, to the same numbers."""
        if self.path.exists():
            lines = _sound_lines(self.path)
            kept = [line for line in lines if (line.get("step") or 0) <= step]
            self.path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def summarise(self, facts: Mapping[str, Any]) -> None:
        """Final facts: scores, ledger."""
        self._mirror(lambda run: run.summary.update(dict(facts)))

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        def send(run: Any) -> None:
            import wandb

            run.log({name: wandb.Table(columns=columns, data=rows)})

        self._mirror(send)

    def close(self, code: int = 0) -> None:
        """Make every line durable and end the mirror's run. Safe to call twice."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
        self._mirror(lambda run: run.finish(exit_code=code, quiet=True))
        self._run = None

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Lightning is done with fitting; the cell is not done yet, so the run stays open."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is None:
            self._file = open(self.path, "a", encoding="utf-8")
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def _mirror(self, send: Any) -> None:
        if self._run is None:
            return
        try:
            send(self._run)
        except Exception as error:  # whatever W&B raises, the run goes on: the file beside it has every number
            log.warning("W&B has stopped taking numbers (%s); %s has them all", error, self.path)
            self._run = None


def _sound_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log that may end in the middle of one."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def _start_wandb(
    folder: Path, config: LoggerConfig, run_id: str, name: str, group: str, settings: Mapping[str, Any]
) -> Any | None:
    import wandb

    mode = config.mode
    if mode == "auto":
        mode = "online" if os.environ.get("WANDB_API_KEY") and os.environ.get("WANDB_MODE", "online") == "online" else "offline"
    try:
        return wandb.init(
            project=config.project,
            id=run_id,
            name=name,
            group=group,
            config=dict(settings),
            dir=str(folder),
            mode=mode,  # type: ignore[arg-type]
            resume="allow" if mode == "online" else None,
            reinit="finish_previous",
            save_code=False,
            settings=wandb.Settings(silent=True, console="off", init_timeout=20, disable_git=True, x_disable_stats=True),
        )
    except Exception as error:  # an unreachable server or a bad key: results are on disk all the same
        log.warning("no W&B run for this cell (%s); its numbers are in %s", error, folder)
        return None
