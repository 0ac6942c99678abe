"""The machine that a plan is for: what is free on it, and what calibrations made on it are known by."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import torch

from babeltune import results
from babeltune.options import Accelerator

CODE = ("modeling", "training", "data/batching.py", "data/datamodule.py", "plan/calibrating.py", "lean.py")
"""What a step's time and memory depend on, below the package."""
LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Where a container says how much it may take, and how much it has."""


def free_bytes(accelerator: Accelerator) -> int | None:
    """The memory that a cell could take now: of the GPU, or of the machine and the container. None without such a device."""
    if accelerator is Accelerator.gpu:
        return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines() if Path("/proc/meminfo").exists() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    for limit, used in LIMITS:
        if Path(limit).is_file() and (most := Path(limit).read_text(encoding="ascii").strip()).isdigit():
            found.append(int(most) - int(Path(used).read_text(encoding="ascii")))
    return min(found, default=None)


@functools.cache
def fingerprint() -> dict[str, Any]:
    """Processor, cores, GPU, libraries, and the code that makes a step."""
    package = Path(__file__).parents[1]
    files = sorted(path for name in CODE for path in ([package / name] if name.endswith(".py") else (package / name).glob("*.py")))
    code = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": _processor(), "cores": os.cpu_count(), "gpu": gpu, "versions": results.versions(), "code": code}


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
