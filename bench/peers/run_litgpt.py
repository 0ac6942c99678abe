"""LitGPT's finetune_lora on rows in the given order. Its schedule is replaced by a constant rate, which it does not offer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from litgpt.args import EvalArgs, TrainArgs
from litgpt.data import JSON
from litgpt.finetune import lora
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from peers import task
from peers.clock import Clock
from peers.ready_litgpt import folder

QKV = re.compile(r"\bh\.(\d+)\.attn\.qkv\.lora_A$")


class InOrder(JSON):
    """Its own data module for JSON, without the shuffle."""

    def train_dataloader(self) -> Any:
        loader = super().train_dataloader()
        return DataLoader(loader.dataset, batch_size=self.batch_size, collate_fn=loader.collate_fn)


def main() -> None:
    setup = task.read()
    torch.set_num_threads(1)
    data = Path(setup.out) / "data"
    data.mkdir(parents=True)
    rows = [{key: row[key] for key in ("instruction", "input", "output")} for row in setup.read_rows()]
    (data / "train.json").write_text(json.dumps(rows), encoding="utf-8")
    (data / "val.json").write_text(json.dumps(rows[: setup.micro]), encoding="utf-8")
    clock = Clock()
    _let_in(clock, setup)
    lora.setup(
        checkpoint_dir=folder(setup),
        out_dir=Path(setup.out) / "adapter",
        precision="bf16-true" if setup.precision == "bf16" else "32-true",
        lora_r=setup.rank,
        lora_alpha=setup.alpha,
        lora_dropout=0.0,
        data=InOrder(data, mask_prompt=True, num_workers=0),
        train=TrainArgs(
            save_interval=None,
            global_batch_size=setup.batch,
            micro_batch_size=setup.micro,
            lr_warmup_steps=0,
            epochs=1,
            max_steps=setup.steps,
            max_seq_length=setup.max_tokens,
        ),
        eval=EvalArgs(interval=10_000, max_new_tokens=1, max_iters=1, final_validation=False),
        optimizer={"class_path": "torch.optim.AdamW", "init_args": {"lr": setup.rate, "weight_decay": 0.0}},
    )
    clock.write()


def _let_in(clock: Clock, setup: task.Task) -> None:
    """The clock begins where the training batches begin, and hears of every loss and step."""
    made = {"steps": 0}
    state: dict[str, Any] = {"useful": None}

    class Clocked(lora.CycleIterator):  # type: ignore[misc, name-defined]
        def __init__(self, iterable: Any) -> None:
            super().__init__(iterable)
            clock.begin()

        def __next__(self) -> Any:
            batch = super().__next__()
            state["useful"] = int(batch["token_counts"]["raw_plus_prompt_template"].sum())
            state["fed"] = batch["input_ids"].numel()
            return batch

    cross_entropy, fit = lora.chunked_cross_entropy, lora.fit

    def counted(logits: Any, targets: Any, *args: Any, **kwargs: Any) -> Any:
        loss = cross_entropy(logits, targets, *args, **kwargs)
        if state["useful"] is not None:
            clock.micro(float(loss.detach()), int((targets != -100).sum()), state["useful"], state["fed"])
        return loss

    class Constant(torch.optim.lr_scheduler.LambdaLR):
        def step(self, *args: Any) -> None:
            super().step(*args)
            if state["useful"] is None:
                return  # the scheduler's own first step
            clock.step()
            made["steps"] += 1
            if made["steps"] == setup.steps:
                clock.end()

    def begun(*args: Any, **kwargs: Any) -> Any:
        _start_alike(kwargs["model"], setup)
        return fit(*args, **kwargs)

    lora.CycleIterator, lora.chunked_cross_entropy, lora.fit = Clocked, counted, begun
    # It reads its own settings off a command line that is not there, and merges by them; the others only save their adapters.
    lora.save_hyperparameters = lora.merge_lora = lambda *_, **__: None
    lora.get_lr_scheduler = lambda optimizer, **_: Constant(optimizer, lambda _: 1.0)


def _start_alike(model: Any, setup: task.Task) -> None:
    """The first matrices of queries and values lie in one tensor."""
    start = load_file(setup.lora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if found := QKV.search(name):
                parameter.copy_(torch.cat([start.pop(f"{found[1]}.q"), start.pop(f"{found[1]}.v")]))
    assert not start, f"no place for {sorted(start)}"


if __name__ == "__main__":
    main()
