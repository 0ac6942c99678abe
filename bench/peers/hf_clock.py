"""The clock in transformers' Trainer and in what is built on it: TRL, LLaMA-Factory, Axolotl."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from peers import task
from peers.clock import Clock


class Clocked(TrainerCallback):
    def __init__(self, trainer: Any, clock: Clock) -> None:
        self._trainer, self._clock = trainer, clock

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        task.start_alike(kwargs["model"], task.read())

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            self._clock.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clock.step()
        self._clock.tick()
        if state.global_step == state.max_steps:
            self._clock.end()


def watch(trainer: Any) -> Clock:
    """Let a clock into a Trainer. What it counts of each micro-batch, the Trainer was handed anyway."""
    clock = Clock()
    trainer.add_callback(Clocked(trainer, clock))
    compute_loss = trainer.compute_loss

    def counted(model: Any, inputs: Any, *args: Any, num_items_in_batch: Any = None, **kwargs: Any) -> Any:
        targets, useful, fed = sizes(inputs)
        result = compute_loss(model, inputs, *args, num_items_in_batch=num_items_in_batch, **kwargs)
        loss = float((result[0] if isinstance(result, tuple) else result).detach())
        is_weighted = num_items_in_batch is not None and trainer.model_accepts_loss_kwargs
        clock.micro(loss * int(num_items_in_batch) / targets if is_weighted else loss, targets, useful, fed)
        return result

    trainer.compute_loss = counted
    return clock


def sizes(inputs: Any) -> tuple[int, int, int]:
    """Targets, tokens without padding and all tokens of a micro-batch."""
    ids, labels = inputs["input_ids"], inputs["labels"]
    mask = inputs.get("attention_mask")
    useful = ids.numel() if mask is None else int((mask != 0).sum())
    return int((labels[:, 1:] != -100).sum()), useful, ids.numel()
