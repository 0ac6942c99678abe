"""The GPUs of this machine, counted without torch, and which of them a process is given."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from babeltune.errors import ConfigError, problem
from babeltune.options import Accelerator, Strategy, TrainerConfig

VISIBLE = "CUDA_VISIBLE_DEVICES"
_LISTED = re.compile(r"^GPU (\d+):", re.MULTILINE)
_PARTS = re.compile(r"\(UUID: (MIG-[^)]+)\)")


def gpus(environment: Mapping[str, str]) -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls each GPU that this process may use: what it says already, or what nvidia-smi finds.

    Where GPUs are cut into parts, CUDA sees the parts. As for CUDA, what stands behind a negative number does not count.
    """
    if (named := environment.get(VISIBLE)) is not None:
        devices = []
        for name in map(str.strip, named.split(",")):
            if not name or name.startswith("-"):
                break
            devices.append(name)
        return devices
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, env=dict(environment))  # noqa: S607
    except (OSError, subprocess.TimeoutExpired):
        return []
    return (_PARTS.findall(done.stdout) or _LISTED.findall(done.stdout)) if done.returncode == 0 else []


def check(trainers: Iterable[TrainerConfig]) -> None:
    """Refuse trainers that want more GPUs of a machine than this one has. Raises ConfigError."""
    wanting = [trainer for trainer in trainers if trainer.accelerator is Accelerator.gpu]
    there = len(gpus(os.environ)) if wanting else 0
    for trainer in wanting:
        if trainer.devices > there:
            raise ConfigError(too_few(trainer, there))


def too_few(trainer: TrainerConfig, there: int) -> str:
    """The sentence for a trainer that wants more GPUs than there are."""
    on_cpu = {Strategy.single: "cpu", Strategy.ddp: "ddp_cpu", Strategy.fsdp: "fsdp_cpu", Strategy.deepspeed: "fsdp_cpu"}
    hint = f"trainer.devices={there}" if there else f"trainer={on_cpu[trainer.strategy]}"
    return problem(f"trainer={trainer.name}", f"{there} GPUs on this machine", f"{trainer.devices}", hint)


def least_used(number: int, devices: Sequence[str], used: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """So many of the devices, those first that the fewest others use; of like ones the first. All of them where there are fewer.

    >>> least_used(1, ["0", "1"], [("0",)])
    ('1',)
    """
    counts = Counter(device for one in used for device in one)
    order = {device: place for place, device in enumerate(devices)}
    chosen = sorted(order, key=lambda device: (counts[device], order[device]))[:number]
    return tuple(sorted(chosen, key=order.__getitem__))
