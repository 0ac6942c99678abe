"""The output layer and the loss alone: full logits against only the targets', babeltune's way.

    python bench/step.py

1,024 tokens of hidden size 512, half of them targets, a frozen output layer. Each way runs in a process of its own. CPU seconds are
those of the fastest of some passes, forward and backward; memory is what the process held at its peak above what it held before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import common
from peers.clock import peak_rss

TOKENS, HIDDEN, PASSES = 1024, 512, 3
WAYS = ("full logits", "babeltune")
BARS = {79_458: (2.0, 15.0, 1e-5)}
"""Vocabulary to: times less CPU time, times less extra memory, largest relative difference of the gradient."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, nargs="*", default=[32_000, 79_458, 151_936])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        way, size, path = options.measure
        print(json.dumps(measure(way, int(size), Path(path))))
        return
    found: dict[int, dict[str, list[dict[str, Any]]]] = {size: {way: [] for way in WAYS} for size in options.vocabulary}
    off: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repeats):
            for size in options.vocabulary:
                for way in WAYS:
                    found[size][way].append(in_a_process(way, size, Path(folder) / f"{way}.pt"))
                off[size] = difference(*(Path(folder) / f"{way}.pt" for way in WAYS))
    text = report(found, off)
    common.write("step", {"machine": common.machine(), "runs": found, "gradient_difference": off}, text)
    print(text)


def in_a_process(way: str, size: int, path: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", way, str(size), str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    facts: dict[str, float] = json.loads(done.stdout)
    return facts


def measure(way: str, size: int, path: Path) -> dict[str, float]:
    """CPU seconds and extra bytes of a pass; the gradient of the hidden states is left in `path`."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    head = nn.Linear(HIDDEN, size, bias=False).requires_grad_(False)
    hidden = torch.randn(TOKENS, HIDDEN, requires_grad=True)
    labels = torch.randint(0, size, (TOKENS,))
    labels[torch.randperm(TOKENS)[: TOKENS // 2]] = -100
    loss_of = _ways()[way]
    loss_of(
        nn.Linear(HIDDEN, 64, bias=False).requires_grad_(False), hidden, labels.clamp(max=63)
    ).backward()  # starts threads, pools
    hidden.grad = None
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, seconds = peak_rss(), []
    for _ in range(PASSES):
        hidden.grad = None
        started = time.process_time()
        loss = loss_of(head, hidden, labels)
        loss.backward()
        seconds.append(time.process_time() - started)
    torch.save((float(loss.detach()), hidden.grad), path)
    return {"cpu": min(seconds), "extra": max(0, peak_rss() - before), "loss": float(loss.detach())}


def _ways() -> dict[str, Any]:
    from torch.nn.functional import cross_entropy

    from babeltune.modeling.outputs import token_losses

    def full(head: Any, hidden: Any, labels: Any) -> Any:
        return cross_entropy(head(hidden).float(), labels, reduction="sum")

    def ours(head: Any, hidden: Any, labels: Any) -> Any:
        chosen = labels != -100
        return token_losses(head, hidden[chosen], labels[chosen]).sum()

    return {"full logits": full, "babeltune": ours}


def difference(full: Path, ours: Path) -> float:
    """The largest difference of two gradients, as a share of the largest entry."""
    import torch

    (_, one), (_, other) = torch.load(full), torch.load(ours)
    return float((one - other).abs().max() / one.abs().max())


def report(found: dict[int, dict[str, list[dict[str, float]]]], off: dict[int, float]) -> str:
    rows, bars = [], []
    for size, ways in found.items():
        full, ours = ways["full logits"], ways["babeltune"]
        faster = min(run["cpu"] for run in full) / min(run["cpu"] for run in ours)
        smaller = min(run["extra"] for run in full) / max(1, min(run["extra"] for run in ours))
        columns = [[run["cpu"] for run in runs] for runs in (full, ours)] + [
            [run["extra"] / common.MB for run in runs] for runs in (full, ours)
        ]
        forms = ("{:.2f}", "{:.2f}", "{:,.0f}", "{:,.0f}")
        cells = [common.cell(column, form) for column, form in zip(columns, forms, strict=True)]
        rows.append((f"{size:,}", *cells, f"{faster:.1f}", f"{smaller:.1f}", f"{off[size]:.1e}"))
        if size in BARS:
            cpu, memory, gradient = BARS[size]
            bars += [
                common.held(f"{size:,}: CPU time, full ÷ ours", faster, cpu, at_least=True),
                common.held(f"{size:,}: extra memory, full ÷ ours", smaller, memory, at_least=True),
                common.held(f"{size:,}: gradient difference", off[size], gradient, at_least=False),
            ]
    header = ("vocabulary", "full CPU-s", "ours CPU-s", "full MB", "ours MB", "× CPU", "× memory", "gradient off by")
    return "\n".join([common.table(header, rows), "", *(f"- {bar}" for bar in bars)])


if __name__ == "__main__":
    main()
