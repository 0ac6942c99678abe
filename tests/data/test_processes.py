"""Chunks worked on by several processes come back in order, and no process outlives its work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from babeltune.data.processes import cores, ordered
from babeltune.errors import DataError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")

BESIDE_A_READER = """
import sys, threading
from babeltune.data.processes import ordered
threading.Thread(target=sys.stdin.read, daemon=True).start()
print(sum(ordered(lambda n: n * n, range(20), 2)), flush=True)
import os; os._exit(0)
"""
KILLED = r"""
import os, signal, sys, time
from babeltune.data.processes import ordered
def work(number):
    os.write(1, f"{os.getpid()}\n".encode())
    return number
results = ordered(work, range(20), 2)
for _ in range(6):
    next(results)
os.kill(os.getpid(), signal.SIGKILL)
"""


def children() -> set[int]:
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {int(pid) for path in tasks for pid in path.read_text().split()}


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("chunks", [0, 1, 3, 4, 7, 40])
def test_results_are_those_of_map(processes: int, chunks: int) -> None:
    assert list(ordered(lambda n: [n, n * n], range(chunks), processes)) == [[n, n * n] for n in range(chunks)]


def test_a_little_work_is_done_here_and_much_by_others() -> None:
    here = os.getpid()
    before = children()
    assert set(ordered(lambda _: os.getpid(), range(3), 4)) == {here}
    assert len(others := set(ordered(lambda _: os.getpid(), range(4), 4))) == 2
    assert len(more := set(ordered(lambda _: os.getpid(), range(50), 4))) == 4
    assert here not in others | more
    assert children() == before


def test_what_is_read_is_little_more_than_what_is_worked_on() -> None:
    read = []

    def chunks() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    for number in ordered(lambda n: n, chunks(), 3):
        assert len(read) <= max(6, number + 5)


def test_an_exception_is_raised_here_and_nobody_is_left() -> None:
    before = children()

    def work(number: int) -> int:
        if number == 7:
            raise DataError("row 7: got nothing")
        return number

    seen = []
    with pytest.raises(DataError, match=r"^row 7: got nothing$"):
        seen.extend(ordered(work, range(20), 2))
    assert children() == before


def test_a_process_that_dies_is_one_sentence() -> None:
    before = children()

    def work(number: int) -> int:
        if number == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(DataError) as caught:
        list(ordered(work, range(20), 2))
    assert str(caught.value) == (
        "tokenising: got a process that ended with exit code -9; expected the tokens of its rows; "
        "try more memory, or fewer cores (taskset -c 0 python train.py ...)"
    )
    assert children() == before


def test_who_stops_asking_ends_them() -> None:
    before = children()
    results = ordered(lambda n: n, range(1000), 2)
    assert next(results) == 0
    assert len(children() - before) == 2
    results.close()
    assert children() == before


def test_a_process_that_reads_its_input_in_a_thread_can_be_copied() -> None:
    command = [sys.executable, "-c", BESIDE_A_READER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        watch = threading.Timer(60, process.kill)
        watch.start()
        assert process.stdout is not None
        said = process.stdout.readline()
        watch.cancel()
    assert said == "2470\n"


def test_when_the_one_that_asks_is_killed_the_others_end() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    pids = {int(line) for line in done.stdout.split()}
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_only_cores_that_this_process_may_use_are_counted() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert cores() == min(8, len(allowed))
