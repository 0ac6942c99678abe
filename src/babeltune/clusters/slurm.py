"""A grid on Slurm: its missing cells are submitted through submitit as arrays of jobs, and watched.

A cell that stands on another waits for it in the queue: all is submitted at once, and the grid needs nobody to go on. Which job
has a cell is noted in the cell's folder: whoever asks for it meanwhile watches that job and submits no other.
"""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babeltune.cells import Cell
from babeltune.clusters import records
from babeltune.clusters.records import Record
from babeltune.clusters.slurmjob import CellJob
from babeltune.errors import ConfigError, HeldError, OutputError, problem
from babeltune.grid import PULSE_SECONDS, terminable
from babeltune.launchers import SlurmLauncher
from babeltune.options import Accelerator
from babeltune.progress import Progress, Standing
from babeltune.results import lock
from babeltune.worker import encode

LATE_SECONDS = 20.0
"""How long a job that is gone may take to be seen as done: a shared file system shows new files late."""
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SUSPENDED", "STOPPED", "PREEMPTED")
"""Slurm's states of a job that does not run now and may later."""
FINAL = ("FAILED", "TIMEOUT", "OUT_OF_MEMORY", "CANCELLED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE")
"""Those of a job that will not run again and did not end well."""
LATER = 10.0
"""Seconds until Slurm is asked again when it did not answer."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the jobs of one array have in common."""

    nodes: int
    devices: int
    threads: int
    gpus: bool
    after: tuple[str, ...]
    """Jobs that have to end well before: the cell that this one stands on."""
    behind: tuple[str, ...]
    """Jobs that have to end in any way before: the same cell, judged otherwise."""


def run(cells: list[Cell], launcher: SlurmLauncher, *, name: str) -> list[Standing]:
    """Submit the cells that are neither done nor queued, and watch until all have ended. Never raises for a cell's failure.

    With `wait` off it returns as soon as all are queued; so it does after Ctrl-C and SIGTERM, by KeyboardInterrupt and
    SystemExit(143): the jobs go on. Raises ConfigError when there is no Slurm here, or it refuses what is asked of it.
    """
    check()
    standings = [Standing(cell, "kept" if cell.is_done else "waiting") for cell in cells]
    with terminable():
        try:
            if not all(standing.is_over for standing in standings):
                with _alone(Path(cells[0].config.paths.outputs)):
                    submit(standings, launcher, name)
            with Progress(standings) as progress:
                _watch(standings, launcher, progress)
        except (KeyboardInterrupt, SystemExit):
            _tell_what_goes_on(standings)
            raise
    if not launcher.wait:
        _tell_what_goes_on(standings)
    return standings


def check() -> None:
    """Refuse a machine that cannot submit. Raises ConfigError."""
    if importlib.util.find_spec("submitit") is None:
        got, hint = "no submitit in this Python", "pip install '.[slurm]'"
        raise ConfigError(problem("hydra/launcher=slurm", got, "the extra that it needs", hint))
    absent = [name for name in ("sbatch", "srun", "squeue", "scontrol") if shutil.which(name) is None]
    if absent:
        got, expected = f"no {', '.join(absent)} on this machine", "a machine of a Slurm cluster from which jobs are submitted"
        raise ConfigError(problem("hydra/launcher=slurm", got, expected, "hydra/launcher=babeltune to run the cells here"))


def submit(standings: Sequence[Standing], launcher: SlurmLauncher, name: str) -> None:
    """Put every cell that is not done into the queue, unless it is there already; what cells stand on first."""
    queue = asked_queue()
    if queue is None:
        expected = "squeue to list the jobs that are queued"
        raise OutputError(problem("hydra/launcher=slurm", "no answer", expected, "squeue by hand to see why"))
    last = {folder: record.job for folder, record in _live(standings, queue).items()}
    parents = {standing.cell.folder for standing in standings if standing.state == "kept"}
    left = [one for one in standings if one.state == "waiting" and not _is_queued(one, queue)]
    while left:
        arrays: dict[Shape, list[Standing]] = {}
        for standing in left:
            parent, folder = standing.cell.parent, standing.cell.folder
            is_first = next(one for one in left if one.cell.folder == folder) is standing
            waits = any(other.cell.folder == parent for other in left)
            if is_first and not waits:
                after = (last[parent],) if parent in last and parent not in parents else ()
                behind = (last[folder],) if folder in last else ()
                arrays.setdefault(_shape(standing.cell, launcher, after, behind), []).append(standing)
        for shape, members in arrays.items():
            for standing, job in zip(members, _submitted(members, shape, launcher, name), strict=True):
                last[standing.cell.folder] = job
        left = [one for one in left if not any(one in members for members in arrays.values())]


def _is_queued(standing: Standing, queue: Mapping[str, tuple[str, str]]) -> bool:
    record = records.noted(standing.cell.folder)
    return record is not None and record.job in queue and record.evaluation == standing.cell.evaluation


def _live(standings: Sequence[Standing], queue: Mapping[str, tuple[str, str]]) -> dict[Path, Record]:
    """The jobs that the cells' folders name, as far as they have not ended."""
    named = {standing.cell.folder: records.noted(standing.cell.folder) for standing in standings}
    return {folder: record for folder, record in named.items() if record is not None and record.job in queue}


def _shape(cell: Cell, launcher: SlurmLauncher, after: tuple[str, ...], behind: tuple[str, ...]) -> Shape:
    trainer = cell.config.trainer
    threads = launcher.cpus_per_task or trainer.threads
    return Shape(trainer.nodes, trainer.devices, threads, trainer.accelerator is Accelerator.gpu, after, behind)


def _submitted(members: Sequence[Standing], shape: Shape, launcher: SlurmLauncher, name: str) -> list[str]:
    """Submit cells of one shape. Returns the ids of their jobs, which are noted in the cells' folders."""
    import submitit

    folder = Path(members[0].cell.config.paths.outputs).absolute() / ".jobs"
    executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=launcher.max_requeues)
    executor.update_parameters(**parameters(shape, launcher, name, len(members)))
    try:
        jobs = executor.submit_array([CellJob(encode(one.cell), launcher.max_requeues) for one in members])
    except Exception as error:  # submitit raises several kinds around what sbatch says
        words = re.sub(r"^.*?sbatch: (error: )?", "", " ".join(str(error).split()))
        hint = "other values of hydra.launcher; sinfo says what there is"
        raise ConfigError(problem("hydra/launcher=slurm", f"sbatch's refusal ({words})", "a job that Slurm takes", hint)) from error
    for standing, job in zip(members, jobs, strict=True):
        log = str(job.paths.stderr)
        records.note(standing.cell.folder, Record(job.job_id, name, standing.cell.evaluation, log))
        records.end(standing, "queued", f"job {job.job_id}")
    return [job.job_id for job in jobs]


def parameters(shape: Shape, launcher: SlurmLauncher, name: str, number: int) -> dict[str, Any]:
    """What submitit is asked for, for an array of so many jobs of one shape."""
    named = {key: getattr(launcher, key) for key in ("partition", "account", "qos", "constraint")}
    known = {key: value for key, value in named.items() if value is not None}
    gpus = f"{launcher.gpu_type}:{shape.devices}" if launcher.gpu_type else str(shape.devices)
    waits = [f"afterok:{job}" for job in shape.after] + [f"afterany:{job}" for job in shape.behind]
    more = {
        "requeue": True,
        "signal": f"USR2@{launcher.signal_delay_s}",
        **({"gpus-per-node": gpus} if shape.gpus else {}),
        **({"mem": f"{round(launcher.mem_gb * 1024)}M"} if launcher.mem_gb is not None else {}),
        **({"dependency": ",".join(waits), "kill-on-invalid-dep": "yes"} if waits else {}),
        **{key: launcher.sbatch[key] for key in launcher.sbatch},
    }
    return {
        **known,
        "job_name": re.sub(r"[^\w.-]+", "-", f"babeltune-{name}"),
        "time": launcher.timeout_min,
        "nodes": shape.nodes,
        "ntasks_per_node": shape.devices,
        "cpus_per_task": shape.threads,
        "array_parallelism": launcher.array_parallelism,
        # Of a cell's tasks none is of use without the others. Since 22.05 srun does not take the cores of its job by itself.
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={shape.threads}"],
        "setup": [f"export OMP_NUM_THREADS={shape.threads}", *launcher.setup],
        "additional_parameters": more,
    }


@contextlib.contextmanager
def _alone(outputs: Path) -> Iterator[None]:
    """Nobody else submits cells of the same outputs meanwhile: each would find none queued."""
    while True:
        try:
            with lock(outputs / ".jobs"):
                yield
                return
        except HeldError:
            time.sleep(PULSE_SECONDS)


def _watch(standings: Sequence[Standing], launcher: SlurmLauncher, progress: Progress) -> None:
    """Follow the jobs to their ends."""
    seen = 0.0
    gone: dict[str, float] = {}
    while True:
        if time.monotonic() >= seen:
            queue = asked_queue()
            for standing in standings:
                if queue is not None and not standing.is_over:
                    look(standing, queue, standings, gone)
            seen = time.monotonic() + (LATER if queue is None else launcher.poll_seconds)
        progress.show()
        if all(standing.is_over for standing in standings) or not launcher.wait:
            return
        time.sleep(PULSE_SECONDS)


def look(standing: Standing, queue: Mapping[str, tuple[str, str]], standings: Sequence[Standing], gone: dict[str, float]) -> None:
    """Find out where a cell stands: from the queue, and from what its job wrote. `gone`: when jobs were first missed."""
    cell = standing.cell
    record = records.noted(cell.folder)
    if record is None or record.evaluation != cell.evaluation:
        return
    told = records.heard(cell.folder, record.job)
    if record.job in queue:
        state, reason = queue[record.job]
        if state in WAITING:
            standing.state, standing.note = "queued", f"job {record.job}" + (f" ({reason})" if reason not in ("None", "") else "")
        else:
            records.show(standing, told)
    elif cell.is_done:
        records.end(standing, "done", seconds=told.get("seconds", 0.0))
    elif any(other.cell.folder == cell.parent and other.state == "failed" for other in standings):
        records.end(standing, "failed", f"the cell it stands on failed: {cell.parent}")
    elif told.get("event") in ("failed", "held"):
        records.end(standing, "failed", told["reason"], told["seconds"])
    elif time.monotonic() - gone.setdefault(record.job, time.monotonic()) > LATE_SECONDS or ended(record.job) in FINAL:
        records.end(standing, "failed", death(record))


def asked_queue() -> dict[str, tuple[str, str]] | None:
    """This user's jobs that have not ended: id → state and why it waits. None when Slurm does not answer."""
    words = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i|%T|%r"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            lines = [line.strip().split("|") for line in done.stdout.splitlines() if line.count("|") == 2]
            return {job: (state, reason) for job, state, reason in lines}
    return None


def ended(job: str) -> str:
    """Slurm's word for how a job ended: TIMEOUT, OUT_OF_MEMORY, CANCELLED; empty when it has forgotten the job."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        words = ["scontrol", "show", "job", job]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        found = re.search(r"JobState=(\w+)", done.stdout)
        if found is not None:
            return found[1]
    return ""


def death(record: Record) -> str:
    """Why a job that left no result is gone."""
    state = ended(record.job)
    hints = {
        "TIMEOUT": "; its time was up before it could write a checkpoint: a larger hydra.launcher.signal_delay_s",
        "OUT_OF_MEMORY": "; a larger hydra.launcher.mem_gb or a smaller trainer.micro_tokens",
        "CANCELLED": "; the same command goes on from its last checkpoint",
    }
    how = f"ended as {state}" if state else "is gone"
    return f"job {record.job} {how}{hints.get(state, '')}; see {record.log} and train.log in the cell's folder"


def _tell_what_goes_on(standings: Sequence[Standing]) -> None:
    jobs = [record.job for one in standings if not one.is_over and (record := records.noted(one.cell.folder))]
    if jobs:
        arrays = " ".join(dict.fromkeys(job.split("_")[0] for job in jobs))
        text = f"{len(jobs)} cells go on in Slurm; the same command watches them again; scancel {arrays} ends them"
        print(text, file=sys.stderr)
