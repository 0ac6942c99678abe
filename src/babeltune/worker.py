"""A process that runs cells for a grid: reads them from standard input, a JSON line each, and tells how they go on standard output.

Imports and cached data are paid for once and serve every cell it is given. What the libraries print goes to the cell's
`train.log`. When the grid that started it is gone, however it went, the worker ends at once.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, Protocol, TextIO

from babeltune import lean
from babeltune.cells import Cell
from babeltune.config import build, dump
from babeltune.errors import BabelTuneError, HeldError, problem
from babeltune.results import writing

log = logging.getLogger(__name__)

PREEMPTED = 143
"""Exit code of whoever was asked to stop by a signal and can be taken up again."""


PLAIN = "--plain"
"""Tells a worker that none of its cells quantises a model."""


def may_quantise(cell: Cell) -> bool:
    """Whether the cell's process may need bitsandbytes: for its own weights, or for those of a parent that it merges first."""
    merges = cell.parent is not None and not (cell.parent / "model").is_dir()
    return merges or cell.config.precision.kind.quantises


def encode(cell: Cell) -> str:
    """A cell as the line that a worker is sent."""
    return json.dumps(
        {
            "config": dump(cell.config),
            "identity": cell.identity,
            "evaluation": cell.evaluation,
            "folder": str(cell.folder),
            "parts": cell.parts,
            "parent": None if cell.parent is None else str(cell.parent),
        }
    )


def decode(line: str) -> Cell:
    tree = json.loads(line)
    return Cell(
        config=build(tree["config"]),
        identity=tree["identity"],
        evaluation=tree["evaluation"],
        folder=Path(tree["folder"]),
        parts=tree["parts"],
        parent=None if tree["parent"] is None else Path(tree["parent"]),
    )


class Listener(Protocol):
    """Whoever is told how a cell goes on."""

    def send(self, event: str, **facts: Any) -> None: ...


class Events:
    """The worker's words to the grid: one JSON object a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, event: str, **facts: Any) -> None:
        with self._lock:
            self._stream.write(json.dumps({"event": event, **facts}) + "\n")
            self._stream.flush()


def main() -> int:
    signal.signal(signal.SIGUSR1, _leave)
    events = Events(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    events.send("ready")
    while (line := lines.get()) is not None:
        code = run_cell(decode(line), events, quantises=PLAIN not in sys.argv[1:])
        if code:
            return code
    return 0


def _leave(number: int, frame: object) -> None:
    """Slurm signals every process of a job; while a cell trains, a handler that writes a checkpoint is in this one's place."""
    raise SystemExit(PREEMPTED)


def _listen(lines: queue.Queue[str | None]) -> None:
    """Pass lines on. The word `end` lets the worker finish; an end of input without it means that the grid has died."""
    for line in sys.stdin:
        if line.strip() == "end":
            lines.put(None)
            return
        lines.put(line)
    os.kill(os.getpid(), signal.SIGKILL)


def run_cell(cell: Cell, events: Listener, *, quantises: bool) -> int:
    """Run one cell and say how it ended. Returns an exit code when the worker should not go on.

    `quantises`: whether this process may ever need bitsandbytes.
    """
    try:
        with writing(cell.folder):
            cell.folder.mkdir(parents=True, exist_ok=True)
            record = os.open(cell.folder / "train.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(record, 1)
        os.dup2(record, 2)
        os.close(record)
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s", force=True)
        lean.import_libraries(quantises=quantises)
        from babeltune.runner import Preempted, run

        try:
            result = run(cell, events.send)
        except Preempted as stop:
            events.send("preempted", reason=str(stop), last=True)
            return PREEMPTED
        events.send("done", scores={name: score.value for name, score in result.scores.items()})
    except HeldError as error:
        events.send("held", reason=str(error))
    except BabelTuneError as error:
        log.error("%s", error)
        events.send("failed", reason=str(error))
    except Exception as error:  # whatever a library raises costs this cell, and a process that may be in any state
        traceback.print_exc()
        events.send("failed", reason=_reason(error, cell), last=True)
        return 1
    return 0


def _reason(error: Exception, cell: Cell) -> str:
    """One sentence for an error that nobody raised on purpose."""
    if is_out_of_memory(error):
        config = cell.config
        return problem(
            cell.folder.name,
            "too little memory",
            f"room for {config.trainer.micro_tokens} tokens at a time",
            f"trainer.micro_tokens={max(config.data.max_tokens, config.trainer.micro_tokens // 2)}, a smaller data.max_tokens, "
            "or precision=nf4 with an adapter",
        )
    words = " ".join(str(error).split())[:300] or "no message"
    return f"{type(error).__name__}: {words} (see {cell.folder / 'train.log'})"


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out. Torch has a class of its own for a GPU's, and a plain RuntimeError for the machine's."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


if __name__ == "__main__":
    sys.exit(main())
