"""LLaMA-Factory's supervised fine-tuning, with a template of the bare prompt: its own for Alpaca has other words for inputs.

It imports torchaudio whatever it is asked to do. Where there is none, an empty module takes its place: text has no use for it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import torch

if importlib.util.find_spec("torchaudio") is None:
    sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    sys.modules["torchaudio"].__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)

from llamafactory.data.formatter import EmptyFormatter, StringFormatter
from llamafactory.data.template import register_template
from llamafactory.train.sft import workflow
from llamafactory.train.tuner import run_exp

from peers import task
from peers.clock import Clock
from peers.hf_clock import watch


def main() -> None:
    setup = task.read()
    torch.set_num_threads(1)
    register_template(
        name="bench",
        format_user=StringFormatter(slots=["{{content}}"]),
        format_prefix=EmptyFormatter(slots=[{"bos_token"}]),
    )
    clocks: list[Clock] = []

    class Watched(workflow.CustomSeq2SeqTrainer):  # type: ignore[misc, name-defined]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            clocks.append(watch(self))

    workflow.CustomSeq2SeqTrainer = Watched
    folder = Path(setup.out)
    folder.mkdir(parents=True, exist_ok=True)
    source = {"bench": {"file_name": setup.rows, "columns": {"prompt": "prompt", "response": "output"}}}
    (folder / "dataset_info.json").write_text(json.dumps(source), encoding="utf-8")
    run_exp(arguments(setup))
    clocks[0].write()


def arguments(setup: task.Task) -> dict[str, Any]:
    return {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": setup.model,
        "dataset": "bench",
        "dataset_dir": setup.out,
        "template": "bench",
        "cutoff_len": setup.max_tokens,
        "overwrite_cache": True,
        "finetuning_type": "lora",
        "lora_rank": setup.rank,
        "lora_alpha": setup.alpha,
        "lora_dropout": 0.0,
        "lora_target": "q_proj,v_proj",
        "disable_shuffling": True,
        "disable_gradient_checkpointing": True,
        "output_dir": f"{setup.out}/adapter",
        "per_device_train_batch_size": setup.micro,
        "gradient_accumulation_steps": setup.accumulate,
        "max_steps": setup.steps,
        "learning_rate": setup.rate,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "optim": "adamw_torch",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": setup.precision == "bf16",
        "disable_tqdm": True,
    }


if __name__ == "__main__":
    main()
