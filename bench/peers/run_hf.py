"""transformers' Trainer with peft, the way of alpaca-lora's finetune.py: rows tokenised one by one and padded to the longest.

https://github.com/tloen/alpaca-lora; the loss is the Trainer's own of today, a mean over the targets of a whole step.
"""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

from peers import hf_model, task
from peers.hf_clock import watch


def main() -> None:
    setup = task.read()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(setup.model)
    tokenizer.padding_side = "left"

    def tokenise(row: dict[str, Any]) -> dict[str, Any]:
        whole = tokenizer(row["prompt"] + row["output"], truncation=True, max_length=setup.max_tokens)
        if len(whole["input_ids"]) < setup.max_tokens:
            whole["input_ids"].append(tokenizer.eos_token_id)
            whole["attention_mask"].append(1)
        count = len(tokenizer(row["prompt"], truncation=True, max_length=setup.max_tokens)["input_ids"])
        whole["labels"] = [-100] * count + whole["input_ids"][count:]
        return dict(whole)

    rows = Dataset.from_list(setup.read_rows())
    tokens = rows.map(tokenise, remove_columns=rows.column_names, load_from_cache_file=False)
    model = hf_model.load(setup)
    lora = LoraConfig(
        r=setup.rank, lora_alpha=setup.alpha, target_modules=["q_proj", "v_proj"], lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, lora)
    trainer = Trainer(
        model=model,
        train_dataset=tokens,
        args=TrainingArguments(**arguments(setup)),
        data_collator=DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8, return_tensors="pt", padding=True),
    )
    clock = watch(trainer)
    trainer.train()
    model.save_pretrained(f"{setup.out}/adapter")
    clock.write()


def arguments(setup: task.Task) -> dict[str, Any]:
    """What Trainer and SFTTrainer are told alike."""
    return {
        "output_dir": setup.out,
        "per_device_train_batch_size": setup.micro,
        "gradient_accumulation_steps": setup.accumulate,
        "max_steps": setup.steps,
        "learning_rate": setup.rate,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "optim": "adamw_torch",
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": setup.device == "cpu",
        "bf16": setup.precision == "bf16" or (setup.precision == "nf4" and setup.device == "cuda"),
        "dataloader_num_workers": 0,
        "disable_tqdm": True,
    }


if __name__ == "__main__":
    main()
