"""AdaLoRA's part in a step: the penalty in its gradient, and the cuts after it. Every other adapter passes through untouched.

AdaLoRA writes an update as P·Λ·Q with a diagonal Λ. It measures how much each entry of Λ and its vectors matter to the loss, sets
the least important entries to zero, ever more of them, and keeps P and Q near orthogonal by a penalty (Zhang et al. 2023).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

RUNNING = ("exp_avg_ipt", "exp_avg_unc")
"""The running means by which importance is measured."""


def phases(total: int, first: int, last: int, interval: int) -> tuple[int, int, int]:
    """Steps before the first cut, steps after the last, and steps between two, for a run of `total` steps.

    The settings hold for runs of at least twice as many steps as lie before and after the cuts. A shorter run shortens all three
    in the same proportion, so that half of it is there for cutting.

    >>> phases(10_000, 200, 1000, 10), phases(240, 200, 1000, 10)
    ((200, 1000, 10), (20, 100, 1))
    """
    share = min(1.0, total / max(1, 2 * (first + last)))
    return int(first * share), int(last * share), max(1, int(interval * share))


def plan_ranks(model: Any, total: int) -> None:
    """Tell an adapter that changes with the steps how many there are."""
    if (tuner := _tuner(model)) is not None:
        settings = tuner.peft_config["default"]
        settings.total_step = total
        settings.tinit, settings.tfinal, settings.deltaT = phases(total, settings.tinit, settings.tfinal, settings.deltaT)


def add_penalty(model: Any) -> dict[str, float]:
    """Add the gradient of the penalty to that of the loss. Returns its value by the name it is told under.

    The mean over all P and Q of how far their vectors are from orthonormal (Frobenius norm), times the weight. It depends on
    weights alone, so every process adds the same, once a step and after they have averaged the loss's gradient.
    """
    tuner = _tuner(model)
    if tuner is None or not tuner.peft_config["default"].orth_reg_weight:
        return {}
    matrices = [(name, part) for name, part in tuner.named_parameters() if "lora_A" in name or "lora_B" in name]
    with torch.enable_grad():
        norms = [_off_orthonormal(part if "lora_A" in name else part.T) for name, part in matrices]
        penalty = tuner.peft_config["default"].orth_reg_weight * torch.stack(norms).mean()
        gradients = torch.autograd.grad(penalty, [part for _, part in matrices])
    for (_, part), gradient in zip(matrices, gradients, strict=True):
        part.grad = gradient if part.grad is None else part.grad + gradient
    return {"orthogonality": float(penalty.detach())}


def _off_orthonormal(rows: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.matrix_norm(rows @ rows.T - torch.eye(len(rows), device=rows.device))
    return norm


def cut_ranks(model: Any, done: int) -> None:
    """Cut what is due after `done` steps. Called when the weights have changed and their gradients are still there."""
    if (tuner := _tuner(model)) is not None:
        tuner.update_and_allocate(done)


def running_state(model: Any) -> dict[str, Any]:
    """What an adapter remembers from step to step beside its weights."""
    if (tuner := _tuner(model)) is None:
        return {}
    means = {name: dict(getattr(tuner.rankallocator, name)) for name in RUNNING}
    return means | {"rank_pattern": tuner.peft_config["default"].rank_pattern}


def load_running(model: Any, state: dict[str, Any]) -> None:
    """Put back what `running_state` gave."""
    if (tuner := _tuner(model)) is None:
        return
    allocator = tuner.rankallocator
    places = {name: part.device for name, part in tuner.model.named_parameters()}
    for name in RUNNING:
        setattr(allocator, name, {key: mean.to(places[key]) for key, mean in state[name].items()})
    allocator.ipt = dict(allocator.exp_avg_ipt)  # which weights have been measured; the values are made anew at each step
    tuner.peft_config["default"].rank_pattern = state["rank_pattern"]


def _tuner(model: Any) -> Any | None:
    tuner = getattr(model, "base_model", None)
    return tuner if hasattr(tuner, "update_and_allocate") else None
