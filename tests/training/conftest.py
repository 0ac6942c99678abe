"""Real processes at the price of a fork: the libraries are imported once, in the process that all others are forked from."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
SECONDS = 60.0
"""The longest that any process here may take."""


class Started:
    """A process that runs a job, and the file with what it said."""

    def __init__(self, process: Any, log: Path) -> None:
        self.process, self.log = process, log

    def code(self, seconds: float = SECONDS) -> int:
        """Its exit code, when it has ended; minus the signal's number when one killed it."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.end()
            raise AssertionError(f"still there after {seconds} s:\n{self.said}")
        return int(self.process.exitcode)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


Start = Callable[..., Started]


@pytest.fixture(scope="session")
def server() -> Any:
    context = multiprocessing.get_context("forkserver")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    os.environ["WANDB_SILENT"] = "true"
    context.set_forkserver_preload(["tests.training.jobs"])
    return context


@pytest.fixture
def start(server: Any, tmp_path: Path) -> Iterator[Start]:
    """Starts a job in a process of its own; all are gone when the test is over."""
    started: list[Started] = []

    def begin(job: Callable[..., None], *arguments: Any, **named: Any) -> Started:
        log = tmp_path / f"log-{len(started)}.txt"
        process = server.Process(target=job, args=arguments, kwargs=named | {"log": log})
        process.start()
        started.append(Started(process, log))
        return started[-1]

    yield begin
    for one in started:
        one.end()


@pytest.fixture
def start_ranks(start: Start) -> Callable[..., list[Started]]:
    """Starts a job in as many processes as a cell has, each told its place as a grid tells it."""

    def begin(number: int, job: Callable[..., None], *arguments: Any, **named: Any) -> list[Started]:
        return [start(job, *arguments, environment=place, **named) for place in places(number)]

    return begin


def places(number: int) -> list[dict[str, str]]:
    """What a grid tells each of a cell's processes of its place among them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "WORLD_SIZE": str(number)}
    return [meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(number)]


@pytest.fixture(scope="session")
def whole(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outputs folder with the cell of `jobs.OVERRIDES`, trained without a break."""
    from tests.training import jobs

    outputs = tmp_path_factory.mktemp("whole")
    process = server.Process(target=jobs.train, args=(outputs,), kwargs={"log": outputs / "log.txt"})
    process.start()
    process.join(120)
    assert process.exitcode == 0, (outputs / "log.txt").read_text()
    return outputs


@pytest.fixture
def untrained(whole: Path, tmp_path: Path) -> Path:
    """The same folder before training: tokenizer and tokens are there, so that processes start fast."""
    return untrained_copy(whole, tmp_path / "outputs")


def untrained_copy(whole: Path, outputs: Path) -> Path:
    shutil.copytree(whole, outputs)
    folder = cell_folder(outputs)
    for name in ("adapter", "evaluations"):
        shutil.rmtree(folder / name)
    for name in ("trained.json", "result.json", "metrics.jsonl"):
        (folder / name).unlink()
    return outputs


def cell_folder(outputs: Path) -> Path:
    (folder,) = (path.parent for path in outputs.glob("*/identity.json"))
    return folder


def metrics(outputs: Path) -> list[dict[str, Any]]:
    path = cell_folder(outputs) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def losses(outputs: Path) -> list[str]:
    """Every loss and every source's loss, to the last bit, in the order of steps."""
    return [f"{line['step']} {key} {value.hex()}" for line in metrics(outputs) for key, value in line.items() if "loss" in key]


def adapter(outputs: Path) -> bytes:
    return (cell_folder(outputs) / "adapter" / "adapter_model.safetensors").read_bytes()


def wait_for_step(outputs: Path, step: int, seconds: float = SECONDS) -> None:
    """Until so many lines are in the metrics file."""
    path = cell_folder(outputs) / "metrics.jsonl"
    until = time.monotonic() + seconds
    while not path.exists() or path.read_text().count("\n") < step:
        assert time.monotonic() < until, "the step never came"
        time.sleep(0.002)
