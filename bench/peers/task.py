"""The work as each system is given it. Read in every system's own environment: it needs torch and safetensors, nothing else."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LORA_A = re.compile(r"layers\.(\d+)\..*?([qv])_proj\.lora_[aA]\b")


@dataclass(frozen=True, kw_only=True)
class Task:
    """Paths and numbers; see `bench/work.py`, which writes them."""

    model: str
    """Folder of the model and its tokenizer, as transformers saves them."""
    rows: str
    """The examples in the order of the steps: instruction, input, output; and prompt, which is the text before the output."""
    lora: str
    """safetensors file of the adapter's first matrices, `0.q`, `0.v`, `1.q` …; the second ones are zero."""
    data: str
    """Folder with the source, for babeltune."""
    steps: int
    batch: int
    """Examples in an optimiser step."""
    micro: int
    """Examples that go through the model at a time, where a system counts examples."""
    max_tokens: int
    rate: float
    rank: int
    alpha: int
    precision: str
    """fp32, bf16 or nf4."""
    device: str = "cpu"
    """cpu or cuda."""
    out: str
    """Folder for what a run leaves behind."""

    @property
    def accumulate(self) -> int:
        return self.batch // self.micro

    def read_rows(self) -> list[dict[str, str]]:
        lines = Path(self.rows).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines][: self.steps * self.batch]


def read() -> Task:
    """The task that the environment names."""
    return Task(**json.loads(Path(os.environ["BENCH_TASK"]).read_text(encoding="utf-8")))


def start_alike(model: Any, task: Task) -> None:
    """Give the adapter the first matrices that every system begins with. For libraries with one matrix for each projection."""
    import torch
    from safetensors.torch import load_file

    start = load_file(task.lora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if found := LORA_A.search(name):
                parameter.copy_(start.pop(f"{found[1]}.{found[2]}"))
    assert not start, f"no place for {sorted(start)}"
