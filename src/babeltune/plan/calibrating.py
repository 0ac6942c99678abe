"""A few real steps of a cell on a base of random weights, and what they took.

It does what `runner.train` does, in the same order and with the same imports, so that its peak is that of a cell.
"""

# B rows of a micro-batch

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd.graph import saved_tensors_hooks

from babeltune import runner
from babeltune.config import build
from babeltune.data import preparing
from babeltune.data.batching import Examples, Plan
from babeltune.data.preparing import Writing
from babeltune.evaluation import overlap, suites
from babeltune.evaluation.choosing import choose
from babeltune.evaluation.generating import generate, reference_losses
from babeltune.modeling import loading
from babeltune.modeling.loss import causal_lm
from babeltune.options import Accelerator, LoggerConfig, Order, RunConfig
from babeltune.records import Item
from babeltune.training import fitting, memory
from babeltune.training.tracking import Tracker

NEW_TOKENS = (2, 18)
"""Lengths of the replies that are timed; what is between them is the time of a token."""
OWN_SECONDS = time.process_time
"""Of all threads of this process."""


def measure(asked: dict[str, Any]) -> dict[str, Any]:
    """What some steps and some replies of a cell took.

    `asked`: `config` of the cell with a base that is here; `steps`, the numbers of the examples of each step that is to be done;
    `cache` of the cell's data; `folder` for what a cell writes; `started`, when this process was started.
    """
    config = build(asked["config"])
    accelerator = config.trainer.accelerator
    fitting.check_devices(config.trainer)
    torch.set_num_threads(config.trainer.threads)
    torch.manual_seed(config.seed)
    told: dict[str, Any] = {"starting": time.time() - asked["started"]}
    tokenizer = loading.load_tokenizer(config.model, None)
    way = preparing.writing(config, tokenizer)
    examples = _examples(config, way, Path(asked["cache"])) if asked["steps"] else None
    memory.give_back()
    process = memory.resident_bytes(accelerator)
    is_counted = memory.reset_peak(accelerator)
    started = time.monotonic()
    if examples is None:
        model = loading.load_base(config, None, len(tokenizer))
    else:
        model = runner.model_of(config, None, tokenizer, Path(asked["folder"]))
    told["loading"] = time.monotonic() - started
    if examples is not None:
        told |= _train(model, examples, asked["steps"], config, runner.pad_id(tokenizer), Path(asked["folder"]))
        told["memory"] = _parts(model, told.pop("saved"), process, accelerator) if is_counted else {}
    told |= {"evaluation": _evaluate(model.eval(), tokenizer, config, way, asked["replies"])} if asked["replies"] else {}
    return told


def _examples(config: RunConfig, way: Writing, cache: Path) -> Examples:
    return runner.examples_of(preparing.prepare(config, way, cache, overlap.apart(config)), config)


class Chosen:
    """Rows of a mix so ordered that the shuffled steps of a run hold the examples that were chosen for each."""

    def __init__(self, examples: Examples, steps: Sequence[Sequence[int]], seed: int) -> None:
        count, size = sum(map(len, steps)), len(steps[0])
        blank = np.ones(count, np.int32)
        plan = Plan(blank, blank, seed=seed, epochs=1, global_batch=size)
        self._rows = np.empty(count, np.int64)
        for number, chosen in enumerate(steps):
            self._rows[plan.step(number)] = chosen
        self._examples = examples

    @property
    def lengths(self) -> NDArray[np.int32]:
        return self._examples.lengths[self._rows]

    @property
    def target_counts(self) -> NDArray[np.int32]:
        return self._examples.target_counts[self._rows]

    def __getitem__(self, row: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        document = self._examples[int(self._rows[row])]
        return document.ids, document.targets


def _train(
    model: Any, examples: Examples, steps: Sequence[Sequence[int]], config: RunConfig, pad_id: int, folder: Path
) -> dict[str, Any]:
    """Fit the chosen steps as a run does. The first of them shows what is saved for the backward pass."""
    chosen = Chosen(examples, steps, config.seed)
    optimizer = dataclasses.replace(config.optimizer, epochs=1.0, max_steps=None, global_batch=len(steps[0]))
    data = dataclasses.replace(config.data, order=Order.shuffled)
    trainer = dataclasses.replace(config.trainer, checkpoint_steps=len(steps) + 1)
    config = dataclasses.replace(config, optimizer=optimizer, data=data, trainer=trainer)
    marks: list[tuple[float, float]] = [(time.monotonic(), OWN_SECONDS())]
    saved = Saved(model)

    def tell(event: str, **facts: Any) -> None:
        if facts["done"] == 1:
            saved.__exit__()
        marks.append((time.monotonic(), OWN_SECONDS()))
        if facts["done"] == 0:
            saved.__enter__()

    with Tracker(folder, LoggerConfig(kind="none"), run_id="", name="", group="", settings={}) as tracker:
        fitting.fit(
            model,
            Examples([(chosen, np.arange(len(chosen.lengths), dtype=np.int32))]),
            ["calibration"],
            config,
            pad_id=pad_id,
            folder=folder,
            parts={},
            tracker=tracker,
            tell=tell,
        )
    marks.append((time.monotonic(), OWN_SECONDS()))
    spans = [{"seconds": b[0] - a[0], "cpu_seconds": b[1] - a[1]} for a, b in itertools.pairwise(marks)]
    sizes = [
        {"tokens": int(examples.lengths[numbers].sum()), "targets": int(examples.target_counts[numbers].sum())}
        for numbers in map(np.asarray, steps)
    ]
    return {
        "around": [spans[0], spans[-1]],
        "steps": [size | span for size, span in zip(sizes, spans[1:-1], strict=True)],
        "saved": saved.most_bytes,
    }


class Saved:
    """Counts what autograd keeps for the backward pass: each storage once, parameters not at all."""

    def __init__(self, model: Any) -> None:
        self._own = {part.untyped_storage().data_ptr() for part in model.parameters()}
        self._there: dict[int, int] = {}
        self._is_going_back = False
        self._hooks = saved_tensors_hooks(self._pack, self._unpack)
        self.most_bytes = 0

    def __enter__(self) -> None:
        self._hooks.__enter__()

    def __exit__(self, *failure: object) -> None:
        self._hooks.__exit__()

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._is_going_back:  # the next micro-batch
            self._there, self._is_going_back = {}, False
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._own:
            self._there[storage.data_ptr()] = storage.nbytes()
            self.most_bytes = max(self.most_bytes, sum(self._there.values()))
        return tensor

    def _unpack(self, tensor: torch.Tensor) -> torch.Tensor:
        self._is_going_back = True
        return tensor


def _parts(model: Any, saved: int, process: int, accelerator: Accelerator) -> dict[str, int]:
    """The peak, by what it is made of. What is left over is the output layer and whatever else comes and goes."""
    trained = [part for part in model.parameters() if part.requires_grad]
    own = sum(part.numel() * part.element_size() for part in trained)
    whole = sum(part.numel() * part.element_size() for part in [*model.parameters(), *model.buffers()])
    is_base = len(trained) == len(list(model.parameters()))
    parts = {
        "process": process,
        "weights": whole if is_base else whole - own,
        "adapter": 0 if is_base else own,
        "gradients": own,
        "optimizer": 2 * own,
        "activations": saved,
    }
    return parts | {"output and rest": memory.peak_bytes(accelerator) - sum(parts.values())}


def _evaluate(model: Any, tokenizer: Any, config: RunConfig, way: Writing, most: int) -> dict[str, float]:
    """Seconds of a batch of replies, and of the losses of their references; at most so many items."""
    if config.trainer.accelerator is Accelerator.gpu and not getattr(causal_lm(model), "is_quantized", False):
        model = model.to("cuda")
    items = sorted(suites.items(config), key=lambda item: sum(len(message.text) for message in item.messages))
    start = max(0, (len(items) - most) // 2)
    chosen = items[start : start + most]
    told: dict[str, float] = {"items": len(chosen)}
    if suites.suite(config).asks == "choice":
        told |= {"batch": _seconds(lambda: choose(model, tokenizer, chosen, config, way, _silent)), "token": 0.0}
    else:
        told |= _replying(model, tokenizer, chosen, config, way)
    asked = [item for item in chosen if item.reference]
    told["references"] = _seconds(lambda: reference_losses(model, asked, config, way)) if asked else 0.0
    return told


def _replying(model: Any, tokenizer: Any, chosen: list[Item], config: RunConfig, way: Writing) -> dict[str, float]:
    """The seconds of a batch before its first token, and of each token."""
    times = []
    for length in NEW_TOKENS:
        decoding = dataclasses.replace(config.decoding, max_new_tokens=length, min_new_tokens=length)
        short = dataclasses.replace(config, decoding=decoding)
        times.append(_seconds(lambda short=short: generate(model, tokenizer, chosen, short, way, _silent)))  # type: ignore[misc]
    low, high = NEW_TOKENS
    token = max(0.0, times[1] - times[0]) / (high - low)
    return {"batch": max(0.0, times[0] - low * token), "token": token}


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic() - started


def _silent(event: str, **facts: Any) -> None:
    """Nobody watches."""
