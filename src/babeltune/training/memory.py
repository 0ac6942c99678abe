"""How much memory this process has taken at most: the system's own count on a CPU, the allocator's on a GPU."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from pathlib import Path

import torch

from babeltune.options import Accelerator

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
PEAK = "5"
"""What resets a process's peak when it is written into `clear_refs`: man proc(5)."""


def give_back() -> None:
    """Return to the system what is free: after a mix is prepared, tens of megabytes that a step would come on top of."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # it is glibc's
        ctypes.CDLL(None).malloc_trim(0)


def reset_peak(accelerator: Accelerator) -> bool:
    """Begin to count anew. Returns whether it can be: elsewhere than on Linux a process cannot forget its peak."""
    if accelerator is Accelerator.gpu:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # before that there is nothing to reset
        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        CLEAR.write_text(PEAK)
    except OSError:
        return False
    return STATUS.exists()


def peak_bytes(accelerator: Accelerator) -> int:
    """The most memory since the last reset: resident pages, or on a GPU what tensors took."""
    return int(torch.cuda.max_memory_allocated()) if accelerator is Accelerator.gpu else _resident("VmHWM")


def resident_bytes(accelerator: Accelerator) -> int:
    """The memory that is taken now."""
    return int(torch.cuda.memory_allocated()) if accelerator is Accelerator.gpu else _resident("VmRSS")


def _resident(name: str) -> int:
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
