"""Starting babeltune as a user does, and ending it as an operating system does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
QUICK = ["model=tiny_fresh", "evaluation=toy_zh", "evaluation.max_items=12", "decoding.max_new_tokens=4", "data.max_rows=96"]
"""A cell of a few steps on a model that needs no pretraining."""


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """`python train.py ...` in a session of its own, so that nothing it starts outlives the test."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def train(*arguments: str, code: int = 0, timeout: float = 600, **environment: str) -> tuple[str, str]:
    """Run `python train.py ...` to its end and return what it printed to stdout and stderr."""
    process = start(*arguments, **environment)
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        end(process)
    assert process.returncode == code, f"exit code {process.returncode}, not {code}\n{out}\n{err}"
    return out, err


def end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with process:  # waits, and closes the pipes
        pass


def wait_for(what: Any, timeout: float = 120) -> Any:
    """Poll until `what()` is true, and return it."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing came of {what} in {timeout} s")


def cells(outputs: Path) -> dict[str, Path]:
    """Finished cells by the name of their folder."""
    return {path.parent.name: path.parent for path in sorted(outputs.glob("*/result.json"))}


def numbers(folder: Path) -> dict[str, Any]:
    """Everything a cell measured that may not depend on how often it was interrupted."""
    result = json.loads((folder / "result.json").read_text())
    training = {key: result["training"][key] for key in ("steps", "last_loss")}
    losses = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        metrics = json.loads(line)
        losses[metrics["step"]] = {key: value for key, value in metrics.items() if key.startswith("train/loss")}
    adapter = next(folder.glob("adapter/*.safetensors"))
    return {
        "scores": result["scores"],
        "ledger": result["ledger"],
        "training": training,
        "losses": losses,
        "adapter": adapter.read_bytes(),
    }


def steps_done(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def children(pid: int) -> list[int]:
    """Processes started by a process, as Linux lists them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


@contextlib.contextmanager
def running(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = start(*arguments, **environment)
    try:
        yield process
    finally:
        end(process)
