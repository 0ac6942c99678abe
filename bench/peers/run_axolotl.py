"""Axolotl's training on its alpaca format, in the given order. Its packing needs an attention that a CPU does not have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ["AXOLOTL_DO_NOT_TRACK"] = "1"

import torch
import yaml
from axolotl import train
from axolotl.cli.args import TrainerCliArgs
from axolotl.cli.config import load_cfg
from axolotl.cli.train import do_train

from peers import task
from peers.clock import Clock
from peers.hf_clock import watch


def main() -> None:
    setup = task.read()
    torch.set_num_threads(1)
    clocks: list[Clock] = []
    setup_trainer = train.setup_trainer

    def watched(*args: Any, **kwargs: Any) -> Any:
        made = setup_trainer(*args, **kwargs)
        clocks.append(watch(made[0] if isinstance(made, tuple) else made))
        return made

    train.setup_trainer = watched
    path = Path(setup.out) / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings(setup)), encoding="utf-8")
    do_train(load_cfg(str(path)), TrainerCliArgs())
    clocks[0].write()


def settings(setup: task.Task) -> dict[str, Any]:
    return {
        "base_model": setup.model,
        "datasets": [{"path": setup.rows, "ds_type": "json", "type": "alpaca"}],
        "dataset_prepared_path": f"{setup.out}/prepared",
        "val_set_size": 0,
        "output_dir": f"{setup.out}/adapter",
        "sequence_len": setup.max_tokens,
        "sample_packing": False,
        "pad_to_sequence_len": False,
        "train_on_inputs": False,
        "shuffle_merged_datasets": False,
        "curriculum_sampling": True,
        "adapter": "lora",
        "lora_r": setup.rank,
        "lora_alpha": setup.alpha,
        "lora_dropout": 0.0,
        "lora_target_modules": ["q_proj", "v_proj"],
        "micro_batch_size": setup.micro,
        "gradient_accumulation_steps": setup.accumulate,
        "max_steps": setup.steps,
        "optimizer": "adamw_torch",
        "lr_scheduler": "constant",
        "learning_rate": setup.rate,
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "bf16": setup.precision == "bf16",
        "fp16": False,
        "tf32": False,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_wandb": False,
        "special_tokens": {"pad_token": "<unk>"},
        "seed": 0,
    }


if __name__ == "__main__":
    main()
