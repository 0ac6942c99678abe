"""Work on chunks, shared out to forked processes, its results in order."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from babeltune.errors import DataError, problem

MOST = 8
"""Processes. What the one that reads can hand out keeps about as many busy."""
EACH = 2
"""Chunks a process must have to do: starting it takes about as long as one."""
TOKENIZERS = "TOKENIZERS_PARALLELISM"

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Those that this process may use, which a scheduler may have made fewer than there are. One where there is no forking."""
    return min(MOST, len(os.sched_getaffinity(0))) if sys.platform == "linux" else 1


def ordered(work: Callable[[T], R], chunks: Iterable[T], processes: int) -> Generator[R, None, None]:
    """`map(work, chunks)`. Where there is enough to do, so many processes do it, a chunk at a time each, while this one reads on.

    What `work` needs is there as it was when the first chunk was asked for; what it changes stays in its process. An exception of
    `work` is raised here. Raises DataError when a process dies.
    """
    chunks = iter(chunks)
    first = deque(itertools.islice(chunks, EACH * processes if processes > 1 else 0))
    count = min(processes, len(first) // EACH)
    chunks = itertools.chain((first.popleft() for _ in range(len(first))), chunks)
    if count < 2:
        yield from map(work, chunks)
        return
    with _forked(work, count) as team:
        turns = itertools.cycle(team)
        busy: deque[Member] = deque()
        for chunk in chunks:
            done = [busy.popleft().answer()] if len(busy) == count else []
            member = next(turns)
            member.ask(chunk)
            busy.append(member)
            yield from done
        for member in busy:
            yield member.answer()


@dataclass(slots=True)
class Member:
    """A process, and what it hears and answers through."""

    pid: int
    connection: Connection
    code: int | None = None
    """How it ended, once it has: its exit code, or its signal below zero."""

    def ask(self, chunk: object) -> None:
        try:
            self.connection.send(chunk)
        except OSError as error:
            raise self._died() from error

    def answer(self) -> Any:
        try:
            is_done, answer = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if not is_done:
            raise answer
        return answer

    def end(self) -> None:
        if self.code is None:
            self.connection.close()
            os.kill(self.pid, signal.SIGTERM)
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _died(self) -> DataError:
        self.end()
        got = f"a process that ended with exit code {self.code}"
        hint = "more memory, or fewer cores (taskset -c 0 python train.py ...)"
        return DataError(problem("tokenising", got, "the tokens of its rows", hint))


@contextlib.contextmanager
def _forked(work: Callable[[Any], Any], count: int) -> Iterator[Sequence[Member]]:
    team: list[Member] = []
    before = os.environ.get(TOKENIZERS)
    os.environ[TOKENIZERS] = "false"  # each process encodes by itself; unsaid, tokenizers warns of every fork
    try:
        for _ in range(count):
            team.append(_fork(work, [member.connection for member in team]))
        yield team
    finally:
        if before is None:
            del os.environ[TOKENIZERS]
        else:
            os.environ[TOKENIZERS] = before
        for member in team:
            member.end()


def _fork(work: Callable[[Any], Any], others: Sequence[Connection]) -> Member:
    """A copy of this process. Not multiprocessing's: that closes standard input first, for whose lock a copy of a process that
    reads its input in a thread would wait for ever.
    """
    here, there = multiprocessing.Pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of locks that other threads may hold: the copy takes none of theirs
        pid = os.fork()
    if pid:
        there.close()
        return Member(pid, here)
    code = 1
    try:
        for other in (here, *others):
            other.close()
        _serve(work, there)
        code = 0
    finally:
        os._exit(code)


def _serve(work: Callable[[Any], Any], connection: Connection) -> None:
    """The life of a process. It ends when the one that asks closes its side, or is gone: nobody else keeps that side open."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(EOFError, OSError):
        while True:
            chunk = connection.recv()
            try:
                answer: tuple[bool, Any] = (True, work(chunk))
            except Exception as error:
                answer = (False, error)
            connection.send(answer)
