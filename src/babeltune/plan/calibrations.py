"""Calibrations: asked for once for each kind of cell on a machine, kept in the cache, shared by the cells of a grid."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babeltune import identity, lean
from babeltune.config import dump
from babeltune.errors import OutputError
from babeltune.options import Accelerator, ModelConfig, RunConfig, Strategy
from babeltune.plan import machine, profiles, shapes
from babeltune.plan.estimating import Calibration, at_depth
from babeltune.plan.profiles import Steps, Weighing
from babeltune.results import read_json, write_json

FOLDER = "calibrations"
"""Below the cache."""
FEW_LAYERS = (2, 4)
"""Depths of the stand-ins of a model that is too large to be calibrated whole."""
LARGEST_SHARE = 0.4
"""Of the free memory that the weights of a calibrated model may take."""
LARGEST_BYTES = 2_000_000_000
"""Of random weights that are written to the disk for a calibration."""
STEP_COST = {Accelerator.cpu: 2.5e11, Accelerator.gpu: 2.5e14}
"""Parameters times tokens that a timed step computes: some ten seconds on a core, a few on a GPU. Larger steps are done in part."""
LARGEST_COST = {Accelerator.cpu: 5e12, Accelerator.gpu: 2e16}
"""Of a whole calibration. What takes more is not calibrated."""
FULL_MICRO_BATCHES = 1.3
"""A timed step has at least so many micro-batches' tokens, so that its peak is that of a whole step."""
OTHER = ("name", "checkpoint_steps", "strategy", "devices", "nodes")
"""Options of a trainer that do not change what one device does in a step."""


@dataclass(frozen=True, slots=True)
class Work:
    """A cell, as far as its calibration needs it."""

    config: RunConfig
    shape: Any
    """The transformers config of its base."""
    tokenizer: Any
    weighing: Weighing
    plan: Any
    """The `data.batching.Plan` of its steps, or None when it is trained, or trains nothing."""
    steps: Steps | None
    replies: int
    """Items of a batch to be answered; 0 to answer none."""


@dataclass(frozen=True, slots=True)
class Found:
    calibration: Calibration | None
    how: str
    """How it was made, or why it was not."""


def calibrate(work: Work, cache: Path) -> Found:
    """What a few steps and replies of a cell take on this machine, measured once for all that are alike."""
    if work.config.trainer.accelerator is Accelerator.gpu and machine.free_bytes(Accelerator.gpu) is None:
        return Found(None, "not calibrated: no GPU on this machine")
    depth = int(work.shape.num_hidden_layers)
    is_whole = _fits(work, depth)
    layers = (depth,) if is_whole or depth <= FEW_LAYERS[1] else FEW_LAYERS
    if not all(_fits(work, one, bound=None) for one in layers):
        return Found(None, "not calibrated: too large for this machine")
    if sum(_cost(work, one) for one in layers) > LARGEST_COST[work.config.trainer.accelerator]:
        return Found(None, "not calibrated: its steps take too long on this machine")
    place = cache / FOLDER / f"{identity.digest(_key(work, layers))}.json"
    with contextlib.suppress(OutputError):
        return Found(read_json(place), _how(layers, depth))
    made = []
    for one in layers:
        told = _run(work, one, depth, cache)
        if "problem" in told:
            return Found(None, f"not calibrated: {told['problem']}")
        made.append(told)
    whole = made[0] if len(made) == 1 else at_depth(made[0], made[1], FEW_LAYERS, depth)
    write_json(place, whole)
    return Found(whole, _how(layers, depth))


def _how(layers: tuple[int, ...], depth: int) -> str:
    return "measured" if layers == (depth,) else f"from {layers[0]} and {layers[1]} of its {depth} layers"


def _key(work: Work, layers: tuple[int, ...]) -> dict[str, Any]:
    """What two cells must have in common to take the same."""
    tree = dump(work.config)
    shape = {key: value for key, value in work.shape.to_dict().items() if not key.startswith("_")}
    asking = {key: tree[key] for key in ("evaluation", "decoding", "template")} | {"max_tokens": tree["data"]["max_tokens"]}
    training = {key: tree[key] for key in ("adapter", "precision")} | {
        "targets": work.config.model.lora_targets,
        "data": {key: tree["data"][key] for key in ("max_tokens", "layout", "order", "loss_on", "workers")},
        "batch": tree["optimizer"]["global_batch"],
    }
    return {
        "machine": machine.fingerprint(),
        "shape": json.loads(json.dumps(shape, default=str)),
        "fresh": work.config.model.fresh is not None,
        "layers": layers,
        "trainer": {key: value for key, value in tree["trainer"].items() if key not in OTHER},
        "training": tree["precision"] if work.steps is None else training | {"alike": profiles.alike(work.steps)},
        "evaluation": asking if work.replies else {},
    }


def _run(work: Work, layers: int, depth: int, cache: Path) -> dict[str, Any]:
    """Calibrate in a process of its own, with what a worker of a grid is given."""
    config = work.config
    whole = layers == depth and config.model.fresh is not None
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="calibrating-", dir=cache) as scratch:
        folder = Path(scratch)
        (folder / "cell").mkdir()
        if not whole:
            shapes.write_random(shapes.with_layers(work.shape, layers), work.tokenizer, folder / "base")
        request = {
            "config": dump(_local(work, None if whole else folder / "base")),
            "steps": _steps(work, layers),
            "replies": work.replies,
            "cache": str(cache),
            "folder": str(folder / "cell"),
            "quantises": config.precision.kind.quantises,
            "started": time.time(),
        }
        process = subprocess.run(
            [sys.executable, "-m", "babeltune.plan"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            env=lean.environment(config.trainer.threads),
            check=False,
        )
    if process.returncode < 0:
        return {"problem": f"its process was killed (signal {-process.returncode}, as the system does when memory runs out)"}
    if process.returncode:
        last = [line for line in process.stderr.splitlines() if line.strip()][-1:]
        return {"problem": " ".join(last)[:300] or f"its process ended with exit code {process.returncode}"}
    return dict(json.loads(process.stdout))


def _local(work: Work, base: Path | None) -> RunConfig:
    """The cell's config with one device, and with a base that is here: random weights, or the fresh ones that it asks for."""
    config = work.config
    known = {"name": config.model.name, "lora_targets": config.model.lora_targets, "tokenizer": work.tokenizer.name_or_path}
    own = ModelConfig(**known, path=str(base)) if base else ModelConfig(**known, fresh=config.model.fresh)
    trainer = dataclasses.replace(config.trainer, strategy=Strategy.single, devices=1)
    if hasattr(trainer, "nodes"):
        trainer = dataclasses.replace(trainer, nodes=1)
    return dataclasses.replace(config, model=own, trainer=trainer, plan=False)


def _steps(work: Work, layers: int) -> list[list[int]]:
    """The examples of each step that is timed."""
    if work.steps is None:
        return []
    return profiles.examples_of_steps(work.plan, profiles.chosen_steps(work.steps, work.weighing), _size(work, layers))


def _size(work: Work, layers: int) -> int:
    """Examples of a timed step: all of a step's, or as many as fill some micro-batches where a step takes long."""
    assert work.steps is not None
    whole = int(work.steps.examples_K.max())
    mean = work.steps.tokens / float(work.steps.examples_K.sum())
    filling = FULL_MICRO_BATCHES * work.config.trainer.micro_tokens / mean
    affordable = STEP_COST[work.config.trainer.accelerator] / (_cost_of_step(work, layers) / whole)
    return min(whole, max(1, round(max(filling, affordable))))


def _cost_of_step(work: Work, layers: int) -> float:
    assert work.steps is not None
    shallow = Weighing(work.weighing.body * layers // int(work.shape.num_hidden_layers), work.weighing.head)
    return float(shallow.cost(work.steps.tokens, work.steps.targets)) / len(work.steps)


def _cost(work: Work, layers: int) -> float:
    if work.steps is None:
        return 0.0
    share = _size(work, layers) / float(work.steps.examples_K.max())
    return share * _cost_of_step(work, layers) * len(_steps(work, layers))


def _fits(work: Work, layers: int, bound: int | None = LARGEST_BYTES) -> bool:
    """Whether a model of so many layers may be calibrated here."""
    share = layers / int(work.shape.num_hidden_layers)
    size = 4 * (work.weighing.body * share + 2 * work.weighing.head)
    free = machine.free_bytes(work.config.trainer.accelerator)
    return (free is None or size < LARGEST_SHARE * free) and (bound is None or size < bound)
