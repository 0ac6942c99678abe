"""Ten minutes on a machine with GPUs: how fast babeltune trains there, beside HF Trainer and TRL, and whether several GPUs agree.

    python bench/gpu.py
    python bench/gpu.py --tiny      the same code at a tiny size on a CPU: its figures mean nothing

A Llama of LLaMA-7B's shape with random weights, LoRA of rank 8 on q and v, bf16 and nf4, rows of 2,048 tokens. The first steps are
left out. Work is counted as 4 FLOPs for each frozen weight and token (forward, and the gradient of the activations; no gradient of
weights; attention's own products are left out), the output layer's at targets only, and is held against the rate at which this card
multiplies large bf16 matrices. HF Trainer and TRL are taken from this environment; TRL is left out where there is none.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import common
import side_by_side
import work
from common import say
from work import SIZES, Setting

WARM_UP = 2
"""Steps that are not counted: kernels are chosen, memory is asked for."""
BAR_RATE, BAR_SPEED = 0.6, 1.5
SAME = 1e-3
"""Largest relative difference of a step's loss between one device and two, in 32-bit floats."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=work.folder)
    parser.add_argument("--tokenizer", type=work.folder)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    devices = num_gpus()
    if not devices and not options.tiny:
        raise SystemExit("bench/gpu.py: got no GPU; expected one that torch sees; try --tiny, which runs the same code on a CPU")
    tiny = options.tiny
    root = common.OUTPUTS / "gpu" / work.fingerprint(options.data, options.tokenizer) / ("tiny" if tiny else "7B")
    rate = matmul_rate(512 if tiny else 8192, "cpu" if tiny else "cuda")
    facts: dict[str, Any] = {
        "machine": common.machine(),
        "devices": device_names(),
        "matmul_flops": rate,
        "runs": [],
        "problems": {},
    }
    for precision in ("fp32", "nf4") if tiny else ("bf16", "nf4"):
        setting = Setting(
            size="tiny" if tiny else "7B",
            vocabulary=32_000,
            precision=precision,
            steps=4 if tiny else options.steps,
            batch=8 if tiny else 128,
            micro=2 if tiny else 4,
            max_tokens=512 if tiny else 2048,
            trainer="cpu" if tiny else "gpu",
        )
        side_by_side_on(root, setting, options, facts)
    facts["agreement"] = agreement(root / "several", options, tiny, devices)
    text = report(facts)
    common.write("gpu_tiny" if tiny else "gpu", facts, text)
    print(text)


def num_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def device_names() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(place) for place in range(num_gpus())]


def matmul_rate(size: int, device: str) -> float:
    """FLOP/s at which this device multiplies two square bf16 matrices, the best of some tries."""
    import torch

    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(4):
            a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - started) / 4)
    return 2 * size**3 / best


def side_by_side_on(root: Path, setting: Setting, options: argparse.Namespace, facts: dict[str, Any]) -> None:
    """A run of each system with one setting; what fails is kept with its reason."""
    names = ["babeltune", "hf", *(["trl"] if importlib.util.find_spec("trl") else [])]
    if "trl" not in names:
        facts["problems"]["trl"] = "not in this environment: pip install trl"
    task = work.prepare(root, setting, options.data, options.tokenizer)
    for name in names:
        run = side_by_side.one(name, Path(sys.executable), task, setting, root / "runs" / f"{setting.name}-{name}")
        if "problem" in run:
            facts["problems"][f"{name} {setting.precision}"] = run["problem"]
        else:
            facts["runs"].append({"system": name, "precision": setting.precision, "size": setting.size, **speed(run, setting)})


def speed(run: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Useful tokens a second and FLOP/s of the steps behind the first ones, peak memory, losses."""
    counted, seconds = run["steps"][WARM_UP:], run["ticks"][-1] - run["ticks"][WARM_UP - 1]
    useful, targets = (sum(step[what] for step in counted) for what in ("useful", "targets"))
    hidden, layers, _, inner = SIZES[setting.size]
    body, head = layers * (4 * hidden**2 + 3 * hidden * inner), setting.vocabulary * hidden
    return {
        "tokens_per_second": useful / seconds,
        "flops": 4 * (body * useful + head * targets) / seconds,
        "padding": 1 - useful / sum(step["fed"] for step in counted),
        "peak": run["peak_device"] or run["peak_rss"],
        "losses": [step["loss"] for step in run["steps"]],
    }


def agreement(root: Path, options: argparse.Namespace, tiny: bool, devices: int) -> dict[str, Any]:
    """By trainer: the largest relative difference of a step's loss from that of one device, or why there is none."""
    if not tiny and devices < 2:
        return {"ddp, fsdp": f"{devices} GPU here; they need two"}
    one, several = ("cpu", ("ddp_cpu", "fsdp_cpu")) if tiny else ("gpu", ("ddp", "fsdp"))
    base = Setting(size="tiny" if tiny else "S", vocabulary=32_000, precision="fp32", steps=4, batch=32, trainer=one)
    task = work.prepare(root, base, options.data, options.tokenizer)
    alone = losses(root / one, task, base, one)
    if isinstance(alone, str):
        return {one: alone}
    found: dict[str, Any] = {}
    for trainer in several:
        their = losses(root / trainer, task, base, trainer)
        is_whole = not isinstance(their, str) and len(their) == len(alone)
        found[trainer] = max(abs(a - b) / a for a, b in zip(alone, map(float, their), strict=True)) if is_whole else their
    return found


def losses(folder: Path, task: dict[str, Any], setting: Setting, trainer: str) -> list[float] | str:
    """Of each step, as the product writes them; or the last words of a run that failed."""
    shutil.rmtree(folder, ignore_errors=True)
    words = [*work.overrides(Path(task["model"]), Path(task["data"]), setting, folder), f"trainer={trainer}"]
    words += [] if trainer in ("cpu", "gpu") else ["trainer.devices=2"]
    usage = common.measure([sys.executable, "train.py", *words], {"OMP_NUM_THREADS": "1"}, folder / "run.log", limit=400)
    if usage.code:
        return common.last_words(usage.said)
    (path,) = folder.glob("*/metrics.jsonl")
    say(f"{trainer}: {usage.wall:.0f} s")
    return [json.loads(line)["train/loss"] for line in path.read_text(encoding="utf-8").splitlines()]


def report(facts: dict[str, Any]) -> str:
    rate, runs = facts["matmul_flops"], facts["runs"]
    where = ", ".join(facts["devices"]) or facts["machine"]["processor"]
    rows = [
        (
            f"{run['system']}, {run['precision']}",
            f"{run['tokens_per_second']:,.0f}",
            f"{run['flops'] / 1e12:.3g}",
            f"{run['flops'] / rate:.0%}",
            f"{run['peak'] / 2**30:.1f}",
            f"{run['padding']:.0%}",
            f"{run['losses'][-1]:.4f}",
        )
        for run in runs
    ]
    header = ("system", "useful tokens/s", "model TFLOP/s", "of measured", "peak GiB", "padding", "last loss")
    first = f"{facts['machine']['date']}, {where}; bf16 matrices {rate / 1e12:.3g} TFLOP/s; commit {facts['machine']['commit']}."
    notes = [f"Left out: {name}: {reason}" for name, reason in facts["problems"].items()]
    return "\n\n".join([first, common.table(header, rows), *notes, "\n".join(f"- {line}" for line in bars(facts))])


def bars(facts: dict[str, Any]) -> list[str]:
    by = {(run["system"], run["precision"]): run for run in facts["runs"]}
    lines = []
    for (system, precision), run in by.items():
        if system != "babeltune":
            continue
        if precision != "nf4":
            share = run["flops"] / facts["matmul_flops"]
            lines.append(common.held("model FLOP/s ÷ the measured rate", share, BAR_RATE, at_least=True))
        if ("hf", precision) in by:
            gain = run["tokens_per_second"] / by["hf", precision]["tokens_per_second"]
            lines.append(common.held(f"{precision}: useful tokens/s × HF Trainer", gain, BAR_SPEED, at_least=True))
    for trainer, off in facts["agreement"].items():
        said = off if isinstance(off, str) else common.held("step losses, two devices against one", off, SAME, at_least=False)
        lines.append(f"{trainer}: {said}")
    return lines


if __name__ == "__main__":
    main()
