"""What a job of Slurm runs: one cell, in each of its tasks.

Slurm says by SIGUSR2 that a job's time is nearly up, and by SIGTERM that it is ended or has to make place. Both let training write
a checkpoint after the step it is in; then a cell whose time is up puts its job into the queue again, and goes on from there. (A job
that has to make place is put there by Slurm.) Nothing is written inside a signal's handler.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any

from babeltune import launched
from babeltune.cells import Cell
from babeltune.clusters.records import Told
from babeltune.errors import problem
from babeltune.worker import PREEMPTED, decode, may_quantise, run_cell

HELD_SECONDS = 180.0
"""How long a job waits for a cell that another process holds: a lock outlives a lost node by so much."""
HELD_PULSE_SECONDS = 5.0


class CellJob:
    """A cell as submitit sends it. Called in every task of the job; safe to call again after any interruption."""

    def __init__(self, line: str, max_requeues: int) -> None:
        self._line = line
        self._max_requeues = max_requeues

    def __call__(self) -> None:
        """Raises SystemExit when the cell is not done: 1 after a failure, 143 when it can be taken up again."""
        rank = meet()
        cell = decode(self._line)
        told = Told(cell.folder, job_id(), is_first=rank == 0)
        code = attempt(cell, told, Asked(), rank, self._max_requeues)
        if code:
            raise SystemExit(code)

    def checkpoint(self) -> Any:
        """For signals that come before ours are listened to: submitit queues the same job again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Asked:
    """Listens to what Slurm asks of a job. Where training listens to SIGTERM too, it is training that hears it."""

    def __init__(self) -> None:
        self.is_out_of_time = False
        signal.signal(signal.SIGUSR2, self._time_is_up)
        signal.signal(signal.SIGTERM, self._leave)

    def _time_is_up(self, number: int, frame: object) -> None:
        self.is_out_of_time = True
        signal.raise_signal(signal.SIGTERM)

    def _leave(self, number: int, frame: object) -> None:
        raise SystemExit(PREEMPTED)


def attempt(cell: Cell, told: Told, asked: Asked, rank: int, max_requeues: int) -> int:
    """Run a cell's process to its end, or until it is asked to leave. Returns the exit code of the task."""
    left = False
    deadline = time.monotonic() + HELD_SECONDS
    try:
        run_cell(cell, told, quantises=may_quantise(cell))
        while told.last == "held" and time.monotonic() < deadline:
            time.sleep(HELD_PULSE_SECONDS)
            run_cell(cell, told, quantises=may_quantise(cell))
    except SystemExit as leaving:
        left = rank == 0 or leaving.code == PREEMPTED  # the others leave by 0 when training is over
    if told.last == "preempted" or (left and told.last not in ("done", "failed")):
        return _leave(told, asked, rank, max_requeues)
    return 1 if told.last in ("failed", "held") else 0


def _leave(told: Told, asked: Asked, rank: int, max_requeues: int) -> int:
    """Queue the job again when its time was up. Only the first task does; the others end well, so that nobody is ended for them."""
    if rank > 0:
        return 0
    if asked.is_out_of_time:
        problem_ = requeue(job_id(), max_requeues)
        if problem_:
            told.send("failed", reason=problem_)
            return 1
    told.send("preempted", reason="its time was up" if asked.is_out_of_time else "it was asked to stop")
    return PREEMPTED


def requeue(job: str, most: int) -> str:
    """Let Slurm start a job again from the beginning. Returns why it cannot, or nothing."""
    before = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if before >= most:
        return problem("hydra.launcher.max_requeues", f"a cell not done after {before} of them", "fewer", "a larger timeout_min")
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)  # noqa: S607
    return "" if done.returncode == 0 else f"Slurm did not queue job {job} again: {' '.join(done.stderr.split())}"


def job_id() -> str:
    """This job's id as Slurm's commands take it. The number alone would mean all of an array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def meet() -> int:
    """Tell torch which of the job's tasks this is and where the others are. Returns the rank."""
    where = launched.place(os.environ)
    if where is None:
        return 0
    launched.meet(where, 0)
    return where.rank
