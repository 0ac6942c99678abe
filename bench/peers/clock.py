"""What every system reports of itself, the same for all: time and memory of the training loop, and what each step saw.

No system's library is needed here. The loop begins where the first batch is fetched and ends after the last optimiser step.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


class Clock:
    """Seconds of the loop; of each step its loss and its tokens."""

    def __init__(self) -> None:
        self._cpu = self._wall = 0.0
        self._micro: list[tuple[float, int]] = []
        self._sums = [0, 0, 0]
        self._steps: list[dict[str, float]] = []
        self._facts: dict[str, Any] = {}
        self._ticks: list[float] = []

    def tick(self) -> None:
        """A step has ended here; its time, once the device has done what it was told."""
        _wait()
        self._ticks.append(time.perf_counter())

    def begin(self) -> None:
        _wait()
        self._facts["peak_before"] = peak_rss()
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def micro(self, loss: float, targets: int, useful: int, fed: int) -> None:
        """A micro-batch: the mean loss of its targets in nats, tokens that are no padding, and all that went in."""
        self._micro.append((loss, targets))
        self._sums = [total + more for total, more in zip(self._sums, (targets, useful, fed), strict=True)]

    def step(self) -> None:
        """The optimiser has made a step. Its loss is the mean over the targets of all its micro-batches."""
        targets, useful, fed = self._sums
        loss = sum(loss * count for loss, count in self._micro) / max(1, targets)
        self._steps.append({"loss": loss, "targets": targets, "useful": useful, "fed": fed})
        self._micro, self._sums = [], [0, 0, 0]

    def end(self, **facts: Any) -> None:
        self._facts |= {"loop_cpu": time.process_time() - self._cpu, "loop_wall": time.perf_counter() - self._wall, **facts}

    def write(self) -> None:
        facts = self._facts | {"steps": self._steps, "ticks": self._ticks, "peak_rss": peak_rss(), "peak_device": _peak_device()}
        Path(os.environ["BENCH_REPORT"]).write_text(json.dumps(facts), encoding="utf-8")


def peak_rss(process: int | str = "self") -> int:
    """The most memory that a process held at a time, in bytes."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _wait() -> None:
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _peak_device() -> int:
    """The most memory of the GPU that torch held at a time, in bytes; 0 without one."""
    torch: Any = sys.modules.get("torch")
    return int(torch.cuda.max_memory_allocated()) if torch is not None and torch.cuda.is_available() else 0
