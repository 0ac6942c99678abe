"""Where numbers go while a cell runs: a file first, Weights & Biases as its mirror.

A server that is away, a full disk of its own or a bad key costs the mirror, never the run and never a number.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from babeltune.mirroring import open_run
from babeltune.options import LoggerConfig
from babeltune.results import write_text, writing

log = logging.getLogger(__name__)


class Tracker(Logger):
    """Lightning's logger for a cell: `metrics.jsonl`, one line per step, mirrored to a W&B run whose id is the cell's identity.

    The mirror is opened by the first number. A run that is taken up again has a mirror of its own, which is first told what the
    file holds: each is complete without the ones before it. Use it in a `with`, so that the mirror learns how the cell ended.
    """

    def __init__(
        self, folder: Path, config: LoggerConfig, *, run_id: str, name: str, group: str, settings: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.path = folder / "metrics.jsonl"
        self._name, self._id = name, run_id
        self._file: FileIO | None = None
        self._run: Any | None = None
        self._is_mirrored = config.kind == "wandb"
        self._start = functools.partial(
            open_run, folder, config, run_id=run_id, name=name, group=group, kind="cell", settings=settings
        )

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(0 if kind is None else 1)

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
        url = None if self._run.offline else self._run.url
        return {"wandb": str(Path(self._run.dir).parent), "run_id": self._id, "url": url}

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The config is in the run from the start."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._open_mirror()
        self._write({"step": step, **metrics})
        self._mirror(lambda run: run.log(dict(metrics), step=step))

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Forget lines past a checkpoint: the steps are about to be done again, to the same numbers."""
        if self.path.exists():
            self._close_file()
            kept = [line for line in self.lines() if line["step"] <= step]
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def lines(self) -> Iterator[dict[str, Any]]:
        """The file's lines, up to one that a crash has cut off."""
        if not self.path.exists():
            return
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(text)
            except json.JSONDecodeError:
                return

    def summarise(self, facts: Mapping[str, Any]) -> None:
        """Final facts: scores, ledger."""
        self._open_mirror()
        self._mirror(lambda run: run.summary.update(dict(facts)))

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        def send(run: Any) -> None:
            import wandb

            run.log({name: wandb.Table(columns=columns, data=rows)})

        self._open_mirror()
        self._mirror(send)

    def sync(self) -> None:
        """Make every line so far survive a power cut. A killed process loses none either way."""
        if self._file is not None:
            with writing(self.path):
                os.fsync(self._file.fileno())

    def close(self, code: int = 0) -> None:
        """Make every line durable and end the mirror's run with an exit code. Safe to call twice."""
        self._close_file()
        self._mirror(lambda run: run.finish(exit_code=code))
        self._run = None

    def _close_file(self) -> None:
        if self._file is not None:
            self.sync()
            self._file.close()
            self._file = None

    def _write(self, line: Mapping[str, Any]) -> None:
        data = (json.dumps(line) + "\n").encode()
        with writing(self.path):
            if self._file is None:
                self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 it stays open between lines
            try:
                while data:
                    data = data[self._file.write(data) :]
            except OSError:
                self._file.close()
                self._file = None
                raise

    def _open_mirror(self) -> None:
        if not self._is_mirrored:
            return
        self._is_mirrored = False
        self._run = self._start()
        if self._run is not None and self._run.offline:  # a server has the earlier lines already
            self._mirror(self._replay)

    def _replay(self, run: Any) -> None:
        for line in self.lines():
            step = line.pop("step")
            run.log(line, step=step)

    def _mirror(self, send: Callable[[Any], object]) -> None:
        if self._run is None:
            return
        try:
            send(self._run)
        except Exception as error:  # whatever W&B raises, the run goes on: the file beside it has every number
            log.warning("W&B has stopped taking numbers (%s); %s has them all", error, self.path)
            self._run = None
