"""Whether each strategy on several GPUs trains what one GPU trains: `python bench/gpu_strategies.py`.

`--cpu` does it with two processes on the CPU.

Every strategy runs as a user runs it, in an outputs folder of its own, on a small random Llama without dropout. Compared are the
loss of every step with that of one device (the order of sums differs, so not to the last bit), and the tensors on disk. A
strategy whose package is not there is named and left out. Exit code 1 when one of them is off.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
STEPS = 12
CELL = (
    "data=toy_all",
    "data.max_rows=192",
    "model=tiny_fresh",
    "adapter=lora",
    "adapter.dropout=0.0",
    "evaluation=none",
    "scale=paper",
    "logger=none",
    "optimizer.global_batch=16",
    f"optimizer.max_steps={STEPS}",
)
TOLERANCE = {"fp32": 1e-3, "bf16": 3e-2}
"""Relative, of a step's loss. A step of AdamW turns a rounding of a tiny gradient into a rounding of the rate."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="two processes on the CPU in place of GPUs")
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--precision", default="fp32", choices=list(TOLERANCE))
    arguments = parser.parse_args()
    alone = "cpu" if arguments.cpu else "gpu"
    shared = ["ddp_cpu", "fsdp_cpu"] if arguments.cpu else ["ddp", "fsdp", "deepspeed"]
    if "deepspeed" in shared and importlib.util.find_spec("deepspeed") is None:
        print("deepspeed: not installed, left out")
        shared.remove("deepspeed")
    rows = compare(alone, shared, arguments.devices, arguments.precision)
    print(json.dumps({"devices": arguments.devices, "precision": arguments.precision, "strategies": rows}, indent=2))
    return 0 if all(row["agrees"] for row in rows) else 1


def compare(alone: str, shared: list[str], devices: int, precision: str) -> list[dict[str, Any]]:
    """How far each strategy is from one device: the largest relative difference of a loss, and of a weight in absolute numbers."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        wanted = train(Path(folder) / alone, alone, 1, precision)
        for trainer in shared:
            found = train(Path(folder) / trainer, trainer, devices, precision)
            loss = max(abs(one / two - 1) for one, two in zip(found["loss"], wanted["loss"], strict=True))
            weight = max(float((found["weights"][name] - part).abs().max()) for name, part in wanted["weights"].items())
            agrees = loss < TOLERANCE[precision] and found["weights"].keys() == wanted["weights"].keys()
            rows.append({"trainer": trainer, "loss": loss, "weight": weight, "seconds": found["seconds"], "agrees": agrees})
    return rows


def train(outputs: Path, trainer: str, devices: int, precision: str) -> dict[str, Any]:
    """Losses of the steps, trained weights and seconds of training. Raises CalledProcessError when the command fails."""
    from safetensors.torch import load_file

    words = [*CELL, f"trainer={trainer}", f"trainer.devices={devices}", f"precision={precision}", f"paths.outputs={outputs}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(ROOT / "train.py"), *words], check=True, env=environment, stdout=subprocess.DEVNULL)
    (cell,) = (path.parent for path in outputs.glob("*/trained.json"))
    lines = [json.loads(line) for line in (cell / "metrics.jsonl").read_text().splitlines()]
    return {
        "loss": [line["train/loss"] for line in lines],
        "weights": load_file(cell / "adapter" / "adapter_model.safetensors"),
        "seconds": json.loads((cell / "trained.json").read_text())["seconds"],
    }


if __name__ == "__main__":
    sys.exit(main())
