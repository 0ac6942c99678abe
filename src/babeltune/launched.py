"""A run that torchrun or srun has started as several processes: this one is one of them, and runs its part of one cell.

A grid starts the processes of a cell itself, on one machine. More machines need a starter on each, and those that exist say in
the environment which process is which. Free of torch until a cell runs.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from babeltune.cells import Cell
from babeltune.errors import ConfigError, HeldError, problem
from babeltune.grid import terminable
from babeltune.launchers import Launcher, LocalLauncher, SlurmLauncher
from babeltune.options import Accelerator, RunConfig, Strategy, TrainerConfig
from babeltune.progress import Progress, Standing
from babeltune.results import lock
from babeltune.worker import PREEMPTED, may_quantise, run_cell

FIRST_PORT, NUM_PORTS = 20000, 20000
"""Where the processes that srun starts meet; two steps of a machine have different names, so they meet at different ports."""
LATE_SECONDS = 20.0
"""How long a file that another machine has written may take to be seen on this one."""
PULSE_SECONDS = 0.5
"""How often the others look whether the first process is done with a cell that the next one stands on."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which of a run's processes this is. Counted from 0."""

    starter: str
    """What has started them, as a user calls it."""
    rank: int
    """Among all."""
    local_rank: int
    """Among those of its machine."""
    node: int
    """Its machine's place among the machines."""
    processes: int
    address: str
    """The machine of the first process."""
    port: int

    def tell(self, environment: MutableMapping[str, str]) -> None:
        """Say it in torch's words."""
        environment["RANK"], environment["WORLD_SIZE"] = str(self.rank), str(self.processes)
        environment["LOCAL_RANK"], environment["NODE_RANK"] = str(self.local_rank), str(self.node)
        environment["MASTER_ADDR"], environment["MASTER_PORT"] = self.address, str(self.port)


def place(environment: Mapping[str, str]) -> Place | None:
    """The place that torchrun or srun has given this process; None when it was started alone.

    A batch script of Slurm is no such process: only a step with several tasks is. Raises ConfigError when they say only half of it.
    """
    try:
        return _place(environment)
    except (KeyError, ValueError) as error:
        starter = "torchrun" if "TORCHELASTIC_RUN_ID" in environment else "srun"
        got = f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        hint = f"{starter} python train.py" if starter == "srun" else "torchrun train.py"
        hint += ", or without TORCHELASTIC_RUN_ID" if starter == "torchrun" else ", or without SLURM_STEP_NUM_TASKS"
        raise ConfigError(problem(f"the environment of {starter}", got, f"what {starter} sets for each process", hint)) from error


def _place(environment: Mapping[str, str]) -> Place | None:
    if "TORCHELASTIC_RUN_ID" in environment:
        return Place(
            starter="torchrun",
            rank=int(environment["RANK"]),
            local_rank=int(environment["LOCAL_RANK"]),
            node=int(environment["GROUP_RANK"]),
            processes=int(environment["WORLD_SIZE"]),
            address=environment["MASTER_ADDR"],
            port=int(environment["MASTER_PORT"]),
        )
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        step = f"{environment['SLURM_JOB_ID']}.{environment['SLURM_STEP_ID']}"
        return Place(
            starter="srun",
            rank=int(environment["SLURM_PROCID"]),
            local_rank=int(environment["SLURM_LOCALID"]),
            node=int(environment["SLURM_NODEID"]),
            processes=int(environment["SLURM_STEP_NUM_TASKS"]),
            address=first_host(environment["SLURM_STEP_NODELIST"]),
            port=FIRST_PORT + hash_of(step) % NUM_PORTS,
        )
    return None


def first_host(nodes: str) -> str:
    """The first machine of Slurm's list.

    >>> first_host("gpu[07-09,12],cpu1"), first_host("login"), first_host("a1,a2")
    ('gpu07', 'login', 'a1')
    """
    found = re.match(r"([^\[,]*)(?:\[([^\],-]*)[^\]]*\])?([^,]*)", nodes)
    assert found is not None
    return "".join(part or "" for part in found.groups())


def hash_of(step: str) -> int:
    """A number of a job's step: `17.0`. Jobs that follow each other get ports far apart from those of their next steps."""
    job, _, number = step.partition(".")
    return int(job) * 31 + int(number)


def check(wanted: Sequence[RunConfig], where: Place | None, launcher: Launcher) -> None:
    """Raises ConfigError when there are not the processes that the cells want."""
    trainer = wanted[0].trainer
    if where is not None and not isinstance(launcher, LocalLauncher):
        got = f"{where.processes} processes started by {where.starter}"
        hint = f"python train.py, without {where.starter}"
        raise ConfigError(problem(f"hydra/launcher={launcher.kind}", got, "one process, which submits the cells", hint))
    if where is None:
        several = next((config.trainer for config in wanted if config.trainer.nodes > 1), None)
        if several is not None and not isinstance(launcher, SlurmLauncher):
            expected = "a process for each device of each machine, started by torchrun, srun or hydra/launcher=slurm"
            raise ConfigError(problem("trainer.nodes", several.nodes, expected, f"{_command(several)} train.py ..."))
    elif len(wanted) > 1:
        got = f"{len(wanted)} cells for {where.processes} processes started by {where.starter}"
        hint = f"python train.py -m ..., which starts the processes of a cell itself, or {where.starter} for each cell"
        raise ConfigError(problem("-m", got, "one cell", hint))
    elif trainer.processes != where.processes:
        got = f"{where.processes} processes started by {where.starter}"
        expected = f"{trainer.processes}, trainer.nodes={trainer.nodes} times trainer.devices={trainer.devices}"
        raise ConfigError(problem(f"trainer={trainer.name}", got, expected, _matching(trainer, where)))


def _matching(trainer: TrainerConfig, where: Place) -> str:
    """What to ask for instead, so that there are as many processes as there are."""
    if trainer.strategy is Strategy.single:
        name = "ddp_cpu" if trainer.accelerator is Accelerator.cpu else "ddp"
        return f"trainer={name} trainer.devices={where.processes}, or python train.py"
    nodes, left = divmod(where.processes, trainer.devices)
    return f"trainer.nodes={nodes}" if nodes and not left else f"trainer.nodes=1 trainer.devices={where.processes}"


def _command(trainer: TrainerConfig) -> str:
    return f"torchrun --nnodes={trainer.nodes} --nproc-per-node={trainer.devices}"


def run(cells: list[Cell], where: Place) -> list[Standing]:
    """Run cells one after another, this process's part of each. The last is the one that was asked for; it stands on the others.

    Of all processes the first one shows how it goes. Raises SystemExit: 143 in each when they were asked to stop, and at the end
    0 or 1 in all but the first.
    """
    os.environ["OMP_NUM_THREADS"] = str(cells[-1].config.trainer.threads)
    standings = [Standing(cell, "kept" if cell.is_done else "waiting") for cell in cells]
    left = [(number, standing) for number, standing in enumerate(standings) if standing.state == "waiting"]
    with _aside() as own, terminable(), _shown(standings, where, own) as show:
        for number, standing in left:
            meet(where, number)
            code = _run(standing, where, show, quantises=any(map(may_quantise, cells)))
            if code == PREEMPTED:
                raise SystemExit(PREEMPTED)
            if standing.state != "done":
                _fail(standing, where, own)
                break
            if where.rank > 0 and standing is not left[-1][1]:
                _wait(standing.cell)
    if where.rank > 0:
        raise SystemExit(0)
    return standings


def meet(where: Place, number: int) -> None:
    """Say in the environment where the processes meet for a cell, the `number`-th since they were started.

    What torchrun keeps for them to meet at serves one meeting; for the next ones the first process keeps a place itself.
    """
    where.tell(os.environ)
    if number:
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
        os.environ["MASTER_PORT"] = str(where.port + number)


def _run(standing: Standing, where: Place, show: Callable[[], None], *, quantises: bool) -> int:
    """Run one cell, or what of it is for this process. Returns an exit code when this process must not go on."""
    standing.state, standing.started, standing.phase = "running", time.monotonic(), "starting"
    show()
    try:
        return run_cell(standing.cell, Heard(standing, show), quantises=quantises)
    except SystemExit as leaving:
        if where.rank == 0 or leaving.code:
            raise
        standing.state = "done"  # training was shared; what is left is for the first process
        return 0


def _fail(standing: Standing, where: Place, own: TextIO) -> None:
    """Leave, and do not wait for processes that may be waiting for this one. The first one says what failed at the end."""
    if where.rank > 0:
        own.write(f"error: {standing.cell.folder.name}: process {where.rank}: {standing.note}\n")
        own.flush()
        os._exit(1)


def _wait(cell: Cell) -> None:
    """Until the first process is done with a cell. When nobody works on it any more, the first process has failed."""
    free = 0.0
    while not cell.is_done:
        time.sleep(PULSE_SECONDS)
        free += PULSE_SECONDS
        with contextlib.suppress(HeldError), lock(cell.folder):
            if free > LATE_SECONDS:
                os._exit(1)
            continue
        free = 0.0


@contextlib.contextmanager
def _aside() -> Iterator[TextIO]:
    """A cell's output goes into its `train.log`. Keep the terminal's, and give both back in the end."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    own = os.fdopen(os.dup(2), "w", encoding="utf-8")
    try:
        yield own
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        own.close()
        for number, copy in enumerate(kept, 1):
            os.dup2(copy, number)
            os.close(copy)


@contextlib.contextmanager
def _shown(standings: list[Standing], where: Place, own: TextIO) -> Iterator[Callable[[], None]]:
    """What to call when a standing has changed: the first process shows them, the others are silent."""
    if where.rank > 0:
        yield lambda: None
        return
    with Progress(standings, own) as progress:
        yield progress.show


class Heard:
    """Takes in what a cell says of itself."""

    def __init__(self, standing: Standing, show: Callable[[], None]) -> None:
        self._standing, self._show = standing, show

    def send(self, event: str, **facts: Any) -> None:
        standing = self._standing
        if event == "progress":
            standing.hear(**facts)
        else:
            standing.state, standing.note = "failed" if event == "held" else event, facts.get("reason", "")
            standing.seconds = time.monotonic() - standing.started
        self._show()
