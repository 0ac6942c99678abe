"""Programs that a model wrote, run where they can harm nothing. See `jail.py` for how.

Kept out: the network; every file but the interpreter and the system's libraries, which can be read and not written; the
environment; other processes; more than 8 processes, 64 MiB of files or the memory and time asked for. It is no virtual machine:
a program that knows a hole in the system's kernel can attack it, and sockets between virtual machines (AF_VSOCK) are open to it.
Only the standard library is there to be imported.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from babeltune.errors import EvalError, problem

JAIL = Path(__file__).with_name("jail.py")
PATIENCE = 60
"""Seconds beyond a program's own that the machine may be too busy for."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended."""

    passed: bool
    """It ran to its end without an error."""
    said: str
    """The error, or why it was ended; empty when it passed."""


def run(program: str, *, seconds: float = 3.0, memory_mb: int = 512) -> Done:
    """Run a Python program. It may compute for so many seconds, and is ended after four times as many by the clock.

    Raises EvalError when this machine cannot keep it apart: nothing is run then.
    """
    interpreter = getattr(sys, "_base_executable", sys.executable)
    asked = {
        "program": program,
        "python": os.path.realpath(interpreter),
        "prefix": os.path.realpath(sys.base_prefix),
        "seconds": seconds,
        "memory_mb": memory_mb,
    }
    try:
        done = subprocess.run(
            [interpreter, "-I", "-S", str(JAIL)],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            env={},
            timeout=4 * seconds + PATIENCE,
            start_new_session=True,
        )
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise _refusal(f"no answer within {error.timeout:g} seconds") from error
    except (ValueError, OSError) as error:
        raise _refusal(f"{type(error).__name__} in place of an answer") from error
    if "refused" in answer:
        raise _refusal(answer["refused"])
    return Done(bool(answer["passed"]), str(answer["said"]))


def check() -> None:
    """Raises EvalError when programs cannot be kept apart on this machine."""
    done = run("assert 1 + 1 == 2", seconds=10)
    if not done.passed:
        raise _refusal(f"a sound program failed ({done.said})")


def python_version() -> str:
    """What programs are run with, to its second number."""
    return ".".join(platform.python_version_tuple()[:2])


def _refusal(words: str) -> EvalError:
    expected = "user, mount, process and network namespaces of Linux 5.12 or later"
    hint = "a machine or container that allows them, or a suite without programs"
    return EvalError(problem("evaluation.allow_code", words, expected, hint))
