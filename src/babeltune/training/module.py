"""The training loop. One loader item is this process's share of one optimizer step."""

# N targets of a micro-batch, S sources of the mix

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor

from babeltune.data.batching import StepBatch
from babeltune.data.rows import IGNORED, MicroBatch
from babeltune.errors import ModelError, problem
from babeltune.modeling.adapters import load_trainable
from babeltune.modeling.loss import target_losses
from babeltune.modeling.pieces import whole
from babeltune.modeling.ranks import add_penalty, cut_ranks, load_running, plan_ranks, running_state
from babeltune.options import OptimizerConfig, Schedule
from babeltune.training import sharding


class CausalLMModule(LightningModule):
    """A causal language model with its adapter, and how a step changes it.

    The loss is summed over target tokens and divided by their count over the whole step, all micro-batches and all processes:
    how a step is cut up does not change its gradient. Randomness in a step depends on (seed, step, rank) alone, so a run that
    was stopped goes on as if it had not been, and no two processes drop the same inputs.
    """

    automatic_optimization = False
    strict_loading = False  # checkpoints hold what is trained and not the frozen base

    def __init__(self, model: Any, *, optimizer: OptimizerConfig, total_steps: int, seed: int, sources: list[str]) -> None:
        super().__init__()
        plan_ranks(model, total_steps)
        self.model = model
        self._optimizer = optimizer
        self._total_steps = total_steps
        self._seed = seed
        self._sources = sources
        self.losses: list[float] = []
        """Loss of each step this process has done."""
        self.num_tokens = 0
        self._target_losses: Callable[..., Tensor] = functools.partial(target_losses, model)

    def configure_model(self) -> None:
        """Take the model apart where the strategy keeps it in pieces."""
        if self._device_mesh is not None:
            self._target_losses = sharding.shard(self.model, target_losses, self._device_mesh["data_parallel"])

    def training_step(self, batch: StepBatch, number: int) -> None:
        """One optimizer step. Raises ModelError before it changes a weight when the loss or its gradient is not a number."""
        step = self.global_step
        assert batch.step == step, f"step {step} was handed the batch of step {batch.step}"
        torch.manual_seed(step_seed(self._seed, step, self.global_rank))
        sums_S2 = self._backward(batch)
        loss = float(sums_S2[:, 0].sum()) / batch.num_targets
        _refuse_unless_finite(step, "loss", loss)
        penalties = add_penalty(self.model)
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        norm = self._clip(optimizer)
        _refuse_unless_finite(step, "gradient norm", norm)
        rate = learning_rate(self._optimizer, step, self._total_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        cut_ranks(self.model, step + 1)
        optimizer.zero_grad()
        self.losses.append(loss)
        self.num_tokens += batch.num_tokens
        self._report(step, batch, sums_S2, {"loss": loss, "learning_rate": rate, "gradient_norm": norm} | penalties)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        first, second = self._optimizer.betas
        return torch.optim.AdamW(
            trained, lr=self._optimizer.learning_rate, betas=(first, second), weight_decay=self._optimizer.weight_decay
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trained = {name: part for name, part in self.model.named_parameters() if part.requires_grad}
        checkpoint["state_dict"] = {name: value.detach() for name, value in zip(trained, map(whole, trained.values()), strict=True)}
        checkpoint["adapter"] = running_state(self.model)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        load_running(self.model, checkpoint["adapter"])

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        load_trainable(self.model, dict(state_dict))
        return torch.nn.modules.module._IncompatibleKeys([], [])

    def _backward(self, batch: StepBatch) -> Tensor:
        """Leave the step's gradient in the parameters. Returns the summed loss and the count of targets of each source,
        over all processes."""
        sums_S2 = torch.zeros(len(self._sources), 2, dtype=torch.float64, device=self.device)
        last = len(batch.micro_batches) - 1
        for place, micro in enumerate(batch.micro_batches):
            with self._sync_if(place == last):
                losses_N = self._target_losses(
                    micro.input_ids_BT, micro.position_ids_BT, micro.document_ids_BT, micro.labels_BT, micro.clusters
                )
                # Processes average their gradients, and each divides by the targets of all.
                self.manual_backward(losses_N.sum() * (self.trainer.world_size / batch.num_targets))
            _tally(sums_S2, losses_N.detach(), micro)
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(sums_S2)
        return sums_S2

    def _sync_if(self, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        """Gradients travel between processes once a step, with its last micro-batch."""
        block: Callable[[], Any] | None = getattr(self.trainer.strategy, "block_backward_sync", None)
        return contextlib.nullcontext() if is_last or block is None else block()

    def _clip(self, optimizer: Any) -> float:
        """The norm of the step's gradient, which is then clipped."""
        if isinstance(self.trainer.strategy, DeepSpeedStrategy):
            (zero,) = self.trainer.strategy.optimizers
            return float(zero.scaled_global_norm())  # type: ignore[attr-defined]  # it clips when it steps
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(trained, self._optimizer.clip or math.inf)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def _report(self, step: int, batch: StepBatch, sums_S2: Tensor, quantities: dict[str, float]) -> None:
        metrics = {f"train/{name}": value for name, value in quantities.items()}
        metrics |= {"train/tokens": batch.num_tokens, "train/target_tokens": batch.num_targets}
        for name, (total, count) in zip(self._sources, sums_S2.tolist(), strict=True):
            if count:
                metrics[f"train/loss_{name}"] = total / count
        for logger in self.loggers:
            logger.log_metrics(metrics, step=step + 1)


def _tally(sums_S2: Tensor, losses_N: Tensor, micro: MicroBatch) -> None:
    sources_N = micro.source_ids_BT[micro.labels_BT != IGNORED]
    sums_S2[:, 0].index_add_(0, sources_N, losses_N.double())
    sums_S2[:, 1].index_add_(0, sources_N, torch.ones_like(losses_N, dtype=torch.float64))


def _refuse_unless_finite(step: int, name: str, value: float) -> None:
    if not math.isfinite(value):
        hint = "a smaller optimizer.learning_rate or optimizer.clip=1"
        raise ModelError(problem(f"step {step}", f"a {name} of {value}", "a finite one", hint))


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of everything random within one step of one process."""
    return int.from_bytes(hashlib.sha256(f"{seed}/step/{step}/{rank}".encode()).digest()[:8]) >> 1


def learning_rate(config: OptimizerConfig, step: int, total: int) -> float:
    """The rate of a step, counted from 0: linear warm-up, then the schedule down to zero after the last step.

    The fall is that of transformers' `get_scheduler`. The warm-up is one step ahead of it: there the first step has a rate of
    zero and changes nothing; here it has the first share of the warm-up.
    """
    warmup = config.warmup_steps if config.warmup_steps is not None else round(config.warmup_fraction * total)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    left = (total - step) / max(1, total - warmup)
    match config.schedule:
        case Schedule.constant:
            return config.learning_rate
        case Schedule.linear:
            return config.learning_rate * left
        case Schedule.cosine:
            return config.learning_rate * 0.5 * (1 - math.cos(math.pi * left))
