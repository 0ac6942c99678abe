"""From the few steps that were timed and weighed to a whole run; and from formulas alone, where nothing could be run. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from babeltune.options import Accelerator, NoAdapter, Precision, RunConfig, Strategy
from babeltune.plan.profiles import Steps, Weighing

Calibration = Mapping[str, Any]
"""What `plan.calibrating` says."""
PROCESS_BYTES = 600_000_000
"""Of a process with its imports, where none was measured."""
OUTPUT_BYTES = 200_000_000
"""Of the output layer's chunk of logits with its gradient, where none was measured."""
BYTES = {Precision.fp32: 4.0, Precision.bf16: 2.0, Precision.int8: 1.0, Precision.nf4: 0.5 + 1 / 64}
"""Of a weight; of a quantised base, of one in a linear module (nf4: four bits, and a byte for every 64 of them)."""
ACTIVATIONS = 34
"""Bytes for each token, feature and layer in 16 bits, attention scores apart: Korthikanti et al. 2022, eq. 1."""


@dataclass(frozen=True, slots=True)
class Duration:
    """Of a training, in seconds."""

    wall: float
    cpu: float


def at_depth(few: Any, more: Any, layers: tuple[int, int], depth: int) -> Any:
    """A calibration of a deep model, from those of two shallow ones: everything that grows, grows by the layer."""
    if isinstance(few, Mapping):
        return {key: at_depth(few[key], more[key], layers, depth) for key in few if key in more}
    if isinstance(few, list):
        return [at_depth(one, two, layers, depth) for one, two in zip(few, more, strict=True)]
    slope = (more - few) / (layers[1] - layers[0])
    value = max(0.0, few + slope * (depth - layers[0]))
    return round(value) if isinstance(few, int) else value


def duration(calibration: Calibration, steps: Steps, weighing: Weighing, config: RunConfig) -> Duration:
    """The time of all steps: the timed ones' for what they compute, once what the first takes longer, and what is around them.

    On a CPU the threads' own seconds are taken, and the best share of a wall's second that they got: neighbours that keep the
    machine busy while it is calibrated do not count. Several processes share the steps; what they say to each other is not in it.
    """
    first, *rest = calibration["steps"]
    timed = rest or [first]
    on_gpu = config.trainer.accelerator is Accelerator.gpu
    clock = "seconds" if on_gpu else "cpu_seconds"
    of_cost = sum(step[clock] for step in timed) / sum(weighing.cost(step["tokens"], step["targets"]) for step in timed)
    warming = max(0.0, first[clock] - of_cost * weighing.cost(first["tokens"], first["targets"]))
    stepping = of_cost * float(weighing.cost(steps.tokens, steps.targets)) / _processes(config)
    whole = stepping + warming + sum(part[clock] for part in calibration["around"])
    if on_gpu:
        return Duration(whole, whole)
    stretch = min(step["seconds"] / max(step["cpu_seconds"], 1e-9) for step in calibration["steps"])
    return Duration(whole * stretch, whole)


def judging(calibration: Calibration, num_items: int, config: RunConfig) -> float:
    """The seconds that replies to all items take when each is as long as it may be, and the references' losses."""
    timed = calibration["evaluation"]
    batches = math.ceil(num_items / max(1, timed["items"]))
    whole = batches * (timed["batch"] + timed["token"] * config.decoding.max_new_tokens)
    return float(whole + timed["references"] * num_items / max(1, timed["items"]))


def shared(memory: Mapping[str, int], config: RunConfig) -> dict[str, int]:
    """The memory of each process, where several hold a model in pieces."""
    pieces = {
        Strategy.single.value: (),
        Strategy.ddp.value: (),
        "fsdp": ("weights", "adapter", "gradients", "optimizer"),
        "deepspeed": ("gradients", "optimizer"),
    }[config.trainer.strategy.value]
    return {name: round(size / _processes(config)) if name in pieces else size for name, size in memory.items()}


def by_formula(config: RunConfig, counts: Mapping[str, int], linears: int, shape: Any) -> dict[str, int]:
    """Memory without any measurement: exact for what is trained, about right for the weights, a bound for activations."""
    is_base = isinstance(config.adapter, NoAdapter)
    trained = 4 * counts["trainable"]
    kind = config.precision.kind
    size = 4.0 if is_base else BYTES[kind]
    frozen = counts["total"] - (0 if is_base else counts["trainable"])
    packed = linears if kind.quantises and not is_base else 0
    weights = size * packed + (4.0 if packed else size) * (frozen - packed)
    wide = 2 if kind is Precision.fp32 or kind.quantises else 1
    layers = int(shape.num_hidden_layers)
    return {
        "process": 0 if config.trainer.accelerator is Accelerator.gpu else PROCESS_BYTES,
        "weights": round(weights),
        "adapter": 0 if is_base else trained,
        "gradients": trained,
        "optimizer": 2 * trained,
        "activations": ACTIVATIONS * wide * int(shape.hidden_size) * layers * config.trainer.micro_tokens,
        "output and rest": OUTPUT_BYTES,
    }


def _processes(config: RunConfig) -> int:
    return int(getattr(config.trainer, "processes", config.trainer.devices))
