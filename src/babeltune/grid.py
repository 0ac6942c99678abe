"""A list of cells → run what is missing, keep going, show where it stands.

The grid itself never imports torch: it starts workers, hands them cells, and watches. A worker that dies costs the cell it had;
the next one gets a fresh worker. A cell of several processes gets a group of its own with its own rendezvous, and nothing of a
grid's command line reaches it, so two cells can never meet in one process group.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from babeltune import devices, lean
from babeltune.cells import Cell
from babeltune.options import Accelerator
from babeltune.progress import Picture, Progress, Standing
from babeltune.worker import PLAIN, PREEMPTED, encode, may_quantise

PULSE_SECONDS = 0.2
"""How often the display is refreshed."""
HELD_SECONDS = 1.0
"""How often a cell that another process works on is asked for again."""
GRACE_SECONDS = 20.0
"""How long a stopped cell may take to write its checkpoint."""


@dataclass(slots=True)
class Group:
    """The process or processes that run one cell at a time, and who hears what the first of them says."""

    processes: list[subprocess.Popen[str]]
    events: queue.Queue[tuple[Group, dict[str, Any]]]
    lasts: bool
    """Whether it takes another cell after this one."""
    made_for: Cell | None = None
    """The first cell: it takes others that need the same of their process."""
    devices: tuple[str, ...] = ()
    """The GPUs that it sees; none where it sees what the grid sees."""
    last: Cell | None = None
    """The cell it had before, whose base it still has."""
    standing: Standing | None = None
    readers: list[threading.Thread] = field(default_factory=list)

    def send(self, line: str) -> None:
        for process in self.processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(line + "\n")
                process.stdin.flush()

    def stop(self, number: int = signal.SIGKILL) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)


def run(
    cells: list[Cell], *, workers: int | None = None, picture: Callable[[list[Standing]], Picture] = Progress
) -> list[Standing]:
    """Run the cells that are not done, in order, several at a time. Never raises for a cell's failure.

    A cell that another process works on is waited for, and is then found done; but when it is the only one that was asked for,
    it is refused.

    Raises KeyboardInterrupt or SystemExit(143) after Ctrl-C, or SIGTERM or SIGUSR1, when every worker has ended.
    """
    standings = [Standing(cell, "kept" if cell.is_done else "waiting") for cell in cells]
    events: queue.Queue[tuple[Group, dict[str, Any]]] = queue.Queue()
    groups: list[Group] = []
    visible = devices.gpus(os.environ) if any(map(_on_gpu, cells)) else []
    width = _width(cells, workers, visible)
    with terminable(), picture(standings) as progress:
        try:
            while not all(standing.is_over for standing in standings):
                _hand_out(standings, groups, events, width, visible)
                progress.show()
                with contextlib.suppress(queue.Empty):
                    group, event = events.get(timeout=PULSE_SECONDS)
                    _hear(group, event, groups)
                    _wait_or_refuse(standings)
        except BaseException:
            _stop(groups, events, standings)
            raise
        for group in groups:
            group.send("end")
        for group in groups:
            _reap(group)
    return standings


def _width(cells: list[Cell], workers: int | None, visible: list[str]) -> int:
    """How many cells run at a time: as many as have devices of their own. No number depends on it.

    Two small cells on two cores are faster than one on both.
    """
    if workers is not None:
        return workers
    most = max((cell.config.trainer.devices for cell in cells), default=1)
    if any(map(_on_gpu, cells)):
        return max(1, len(visible) // most)
    return 1 if most > 1 else min(2, os.cpu_count() or 1)


def _on_gpu(cell: Cell) -> bool:
    return cell.config.trainer.accelerator is Accelerator.gpu


def _hand_out(
    standings: list[Standing],
    groups: list[Group],
    events: queue.Queue[tuple[Group, dict[str, Any]]],
    width: int,
    visible: list[str],
) -> None:
    """Give waiting cells to workers with nothing to do, if they can a cell of the base that the worker has."""
    _give_up(standings)
    while ready := _ready(standings):
        if sum(group.standing is not None for group in groups) >= width:
            return
        standing, found = _matched(ready, [group for group in groups if group.standing is None])
        if found is None:
            if standing.cell.config.trainer.devices > 1 or len(groups) >= width:
                _dismiss(groups)
            found = _start(standing.cell, events, _devices(standing.cell, groups, visible))
            groups.append(found)
        found.standing, found.last = standing, standing.cell
        standing.state, standing.started = "running", time.monotonic()
        standing.phase = "starting"
        found.send(encode(standing.cell))


def _matched(ready: list[Standing], free: list[Group]) -> tuple[Standing, Group | None]:
    """The cell to run next, and the worker for it: the first two that share a base, else the first cell that a worker can take."""
    pairs = [(standing, group) for standing in ready for group in free if _can_take(group, standing.cell)]
    for standing, group in pairs:
        if group.last is not None and _base(group.last) == _base(standing.cell):
            return standing, group
    return pairs[0] if pairs else (ready[0], None)


def _base(cell: Cell) -> object:
    """What the base of a cell is known by. Cells that share one are told apart by it from the rest, whatever else it holds."""
    return cell.parts.get("base"), cell.config.precision.kind, cell.config.trainer.accelerator


def _can_take(group: Group, cell: Cell) -> bool:
    if (first := group.made_for) is None:
        return False
    same = _on_gpu(first) == _on_gpu(cell) and may_quantise(first) == may_quantise(cell)
    return group.lasts and same and cell.config.trainer.devices == 1


def _devices(cell: Cell, groups: list[Group], visible: list[str]) -> tuple[str, ...]:
    """The GPUs for a cell: those that the fewest others are on."""
    if not _on_gpu(cell):
        return ()
    return devices.least_used(cell.config.trainer.devices, visible, [group.devices for group in groups])


def _dismiss(groups: list[Group]) -> None:
    """End workers that have nothing to do: others need their devices and memory."""
    for group in [group for group in groups if group.standing is None]:
        groups.remove(group)
        group.send("end")
        _reap(group)


def _ready(standings: list[Standing]) -> list[Standing]:
    """The waiting cells whose parents are there. One that another process was working on may be done by now."""
    ready = []
    for standing in standings:
        if standing.state != "waiting" or standing.not_before > time.monotonic():
            continue
        if standing.not_before and standing.cell.is_done:
            standing.state = "kept"
        elif not _parents(standing, standings, ("waiting", "running")):
            ready.append(standing)
    return ready


def _wait_or_refuse(standings: list[Standing]) -> None:
    """A held cell goes back to waiting, unless it is all that was asked for."""
    asked_for = [one for one in standings if all(other.cell.parent != one.cell.folder for other in standings)]
    for standing in standings:
        if standing.state != "held":
            continue
        if asked_for == [standing]:
            standing.state = "failed"
        else:
            standing.state, standing.not_before = "waiting", time.monotonic() + HELD_SECONDS


def _give_up(standings: list[Standing]) -> None:
    for standing in standings:
        if standing.state == "waiting" and _parents(standing, standings, ("failed",)):
            standing.state = "failed"
            standing.note = f"the cell it stands on failed: {standing.cell.parent}"


def _parents(standing: Standing, standings: list[Standing], states: tuple[str, ...]) -> bool:
    parent = standing.cell.parent
    return parent is not None and any(other.cell.folder == parent and other.state in states for other in standings)


def _hear(group: Group, event: dict[str, Any], groups: list[Group]) -> None:
    """Take in one word of a worker."""
    standing = group.standing
    kind = event.pop("event")
    if kind == "exit":
        _bury(group, groups, event["process"])
        return
    if standing is None or kind == "ready":
        return
    if kind == "progress":
        standing.hear(**event)
    elif kind in ("done", "failed", "preempted", "held"):
        _end(standing, kind, event.get("reason", ""))
        group.standing = None
        if not group.lasts or event.get("last"):
            groups.remove(group)
            if kind in ("failed", "held"):
                group.stop()
            group.send("end")
            _reap(group)


def _bury(group: Group, groups: list[Group], pid: int) -> None:
    """A process of a group has ended. When the group still had a cell, the cell has failed and the other ranks go too."""
    if group not in groups:
        return
    groups.remove(group)
    code = next(process.wait() for process in group.processes if process.pid == pid)
    group.stop()
    _reap(group)
    if group.standing is not None:
        _end(group.standing, "failed", _death(code, group.standing))


def _end(standing: Standing, state: str, note: str) -> None:
    standing.state, standing.note = state, note
    standing.seconds = time.monotonic() - standing.started


def _death(code: int, standing: Standing) -> str:
    """Why a worker that said nothing is gone."""
    log = standing.cell.folder / "train.log"
    if code == -signal.SIGKILL:
        return f"its process was killed (signal 9, as the system does when memory runs out); see {log}"
    if code < 0:
        return f"its process died of {signal.Signals(-code).name}; see {log}"
    return f"its process ended with exit code {code}; see {log}"


def _start(cell: Cell, events: queue.Queue[tuple[Group, dict[str, Any]]], seen: tuple[str, ...] = ()) -> Group:
    """Start the process of a one-device cell, or the several of one that needs them, and let them see these GPUs only."""
    number = cell.config.trainer.devices
    environment = lean.environment(cell.config.trainer.threads) | {"PYTHONUNBUFFERED": "1"}
    if seen:
        environment |= {devices.VISIBLE: ",".join(seen)}
    if number > 1:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "NODE_RANK": "0"}
        environments = [
            environment | meeting | {"LOCAL_RANK": str(rank), "RANK": str(rank), "WORLD_SIZE": str(number)}
            for rank in range(number)
        ]
    else:
        environments = [environment]
    arguments = () if may_quantise(cell) else (PLAIN,)
    processes = [_process(each, *arguments) for each in environments]
    group = Group(processes, events, lasts=number == 1, made_for=cell, devices=seen)
    for rank, process in enumerate(group.processes):
        reader = threading.Thread(target=_read, args=(group, process, rank), daemon=True)
        reader.start()
        group.readers.append(reader)
    return group


def _process(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """One worker, in a session of its own so that Ctrl-C reaches it through the grid only."""
    return subprocess.Popen(
        [sys.executable, "-m", "babeltune.worker", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env=environment,
        start_new_session=True,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _read(group: Group, process: subprocess.Popen[str], rank: int) -> None:
    """Pass on what a worker says. Of a group the first rank speaks; the others are heard when they fail or die."""
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if rank == 0 or event["event"] == "failed":
            group.events.put((group, event))
    if rank == 0 or process.wait() != 0:
        group.events.put((group, {"event": "exit", "process": process.pid}))


def _reap(group: Group) -> int:
    """Wait for a group's processes to end. Returns the first exit code that is not zero, or zero."""
    codes = []
    for process in group.processes:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        codes.append(process.wait())
    for process, reader in zip(group.processes, group.readers, strict=False):
        reader.join(GRACE_SECONDS)  # it ends with what its process said last
        if process.stdout is not None and not reader.is_alive():
            process.stdout.close()
    return next((code for code in codes if code), 0)


def _stop(groups: list[Group], events: queue.Queue[tuple[Group, dict[str, Any]]], standings: list[Standing]) -> None:
    """End every worker, with time to write a checkpoint first."""
    for group in groups:
        group.stop(signal.SIGTERM if group.standing else signal.SIGKILL)
    deadline = time.monotonic() + GRACE_SECONDS
    for group in groups:
        for process in group.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        group.stop()
        _reap(group)
        if group.standing is not None:
            group.standing.state = "preempted"


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM, and the SIGUSR1 that Slurm sends before it, end a grid the way Ctrl-C does, with an exit code that says so."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(PREEMPTED)

    previous = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
