"""A grid on Ray: each missing cell is a task, which runs it the way a grid of one cell does, with workers of its own on its node.

A task that is lost with its node is started elsewhere, and goes on from the cell's checkpoint. Tasks live as long as the process
that asked for them; after it, the same command goes on from what is on disk. All nodes must see the same folders of results.
"""

from __future__ import annotations

import importlib.util
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from babeltune import grid
from babeltune.cells import Cell
from babeltune.clusters import records
from babeltune.clusters.records import Record, Told
from babeltune.errors import ConfigError, HeldError, problem
from babeltune.launchers import RayLauncher
from babeltune.options import Accelerator
from babeltune.progress import Progress, Standing
from babeltune.results import lock
from babeltune.worker import decode, encode

CARRIED = ("HF_", "WANDB_", "TRANSFORMERS_", "TOKENIZERS_", "BABELTUNE_", "NCCL_")
"""What the variables begin with that a task has as whoever asked for it has them. The others are those of its node."""


def run(cells: list[Cell], launcher: RayLauncher, *, name: str) -> list[Standing]:
    """Run the cells that are not done as tasks of Ray. Never raises for a cell's failure.

    Raises ConfigError when there is no Ray, or no node that could ever hold a cell; KeyboardInterrupt or SystemExit(143) after
    Ctrl-C or SIGTERM, when the cells have written their checkpoints.
    """
    ray = _joined(launcher)
    standings = [Standing(cell, "kept" if cell.is_done else "waiting") for cell in cells]
    tasks: dict[Any, Standing] = {}
    try:
        _check_room(ray.cluster_resources(), [one.cell for one in standings if one.state == "waiting"], launcher)
        with grid.terminable(), Progress(standings) as progress:
            while not all(standing.is_over for standing in standings):
                _hand_out(ray, standings, tasks, launcher, name)
                progress.show()
                _hear(ray, tasks, launcher.poll_seconds)
                for task in [task for task, standing in tasks.items() if standing.state not in ("queued", "running")]:
                    tasks.pop(task)
    except BaseException:
        _stop(ray, tasks)
        raise
    finally:
        ray.shutdown()
    return standings


def check() -> None:
    """Refuse a Python without Ray. Raises ConfigError."""
    if importlib.util.find_spec("ray") is None:
        got, hint = "no ray in this Python", "pip install '.[ray]'"
        raise ConfigError(problem("hydra/launcher=ray", got, "the extra that it needs", hint))


def _joined(launcher: RayLauncher) -> Any:
    """Ray's module, when this process has joined the cluster."""
    check()
    import ray

    try:
        ray.init(address=launcher.address, log_to_driver=False, include_dashboard=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        words = " ".join(str(error).split())[:200]
        hint = "ray start --head there, or hydra.launcher.address=null for this machine alone"
        raise ConfigError(problem("hydra.launcher.address", f"{launcher.address} ({words})", "a Ray that runs", hint)) from error
    return ray


def wanted(cell: Cell, launcher: RayLauncher) -> dict[str, float]:
    """What Ray keeps free for a cell on one node."""
    trainer = cell.config.trainer
    cpus = float((launcher.cpus_per_task or trainer.threads) * trainer.devices)
    gpus = float(trainer.devices) if trainer.accelerator is Accelerator.gpu else 0.0
    return {"CPU": cpus, **({"GPU": gpus} if gpus else {}), **launcher.resources}


def _check_room(there: Mapping[str, float], cells: list[Cell], launcher: RayLauncher) -> None:
    """Refuse a cell that would wait for ever. Raises ConfigError."""
    for cell in cells:
        for resource, number in wanted(cell, launcher).items():
            if number > there.get(resource, 0.0):
                got = f"{there.get(resource, 0.0):g} {resource} in the whole cluster"
                hint = f"trainer={cell.config.trainer.name} with fewer devices, or nodes that have them"
                raise ConfigError(problem("hydra/launcher=ray", got, f"{number:g} for {cell.folder.name}", hint))


def _hand_out(ray: Any, standings: list[Standing], tasks: dict[Any, Standing], launcher: RayLauncher, name: str) -> None:
    """Make tasks of the cells that nothing stands in the way of. Ray keeps them until there is room."""
    for standing in standings:
        cell = standing.cell
        before = [one for one in standings if one.cell.folder == cell.parent]
        beside = [one for one in tasks.values() if one.cell.folder == cell.folder]
        if standing.state != "waiting" or standing.not_before > time.monotonic() or beside:
            continue
        if any(one.state == "failed" for one in before):
            records.end(standing, "failed", f"the cell it stands on failed: {cell.parent}")
        elif all(one.is_over for one in before):
            job = f"ray-{uuid.uuid4().hex[:8]}"
            records.note(cell.folder, Record(job, name, cell.evaluation, str(cell.folder / "train.log")))
            needs = wanted(cell, launcher)
            # A process of Ray's serves one cell: what a cell changes of its process dies with it.
            task = ray.remote(max_calls=1)(run_here).options(
                name=cell.folder.name,
                num_cpus=needs.pop("CPU"),
                num_gpus=needs.pop("GPU", 0.0),
                resources=needs,
                max_retries=launcher.retries,
            )
            carried = {key: value for key, value in os.environ.items() if key.startswith(CARRIED)}
            tasks[task.remote(encode(cell), job, str(Path.cwd()), carried)] = standing
            records.end(standing, "queued", "until Ray has room for it")


def run_here(line: str, job: str, folder: str, environment: dict[str, str]) -> tuple[str, str, float]:
    """What a task runs, on whatever node: a grid of one cell. Gives its state, why it failed, and its seconds."""
    os.environ.update(environment)
    os.chdir(folder)
    cell = decode(line)
    told = Told(cell.folder, job)
    (standing,) = grid.run([cell], workers=1, picture=lambda standings: Telling(standings[0], told))
    return standing.state, standing.note, standing.seconds


class Telling:
    """Writes down where a cell stands, for the process that asked for it and sees no other node."""

    def __init__(self, standing: Standing, told: Told) -> None:
        self._standing, self._told = standing, told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.show()

    def show(self) -> None:
        one = self._standing
        if one.state == "running":
            self._told.send("progress", phase=one.phase, done=one.done, total=one.total, note=one.note)


def _hear(ray: Any, tasks: Mapping[Any, Standing], seconds: float) -> None:
    """Take in what tasks have written down, and what those have returned that are over."""
    over, running = ray.wait(list(tasks), num_returns=len(tasks), timeout=seconds) if tasks else ([], [])
    for task in running:
        cell = tasks[task].cell
        record = records.noted(cell.folder)
        if record is not None and (told := records.heard(cell.folder, record.job)):
            records.show(tasks[task], told)
    for task in over:
        standing = tasks[task]
        try:
            state, note, spent = ray.get(task)
        except ray.exceptions.RayError as error:
            words = " ".join(str(error).split())[:300]
            log = standing.cell.folder / "train.log"
            records.end(standing, "failed", f"Ray lost it, {type(error).__name__}: {words} (see {log})")
            continue
        records.end(standing, "done" if state == "kept" else state, note, spent)
        if state == "failed" and _is_held(standing.cell.folder):
            standing.state, standing.not_before = "waiting", time.monotonic() + grid.HELD_SECONDS


def _is_held(folder: Path) -> bool:
    """Whether another process works on a cell. It is asked for again until that has ended."""
    try:
        with lock(folder):
            return False
    except HeldError:
        return True


def _stop(ray: Any, tasks: Mapping[Any, Standing]) -> None:
    """Let every task that runs write a checkpoint, and end."""
    for task in tasks:
        ray.cancel(task)
    if tasks:
        ray.wait(list(tasks), num_returns=len(tasks), timeout=grid.GRACE_SECONDS + 10)
