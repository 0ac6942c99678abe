"""TRL's SFTTrainer on prompts and completions, its defaults where the task does not say otherwise."""

from __future__ import annotations

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from peers import hf_model, task
from peers.hf_clock import watch
from peers.run_hf import arguments


def main() -> None:
    setup = task.read()
    torch.set_num_threads(1)
    rows = Dataset.from_list([{"prompt": row["prompt"], "completion": row["output"]} for row in setup.read_rows()])
    model = hf_model.load(setup)
    trainer = SFTTrainer(
        model=model,
        processing_class=AutoTokenizer.from_pretrained(setup.model),
        train_dataset=rows,
        args=SFTConfig(**arguments(setup), max_length=setup.max_tokens, gradient_checkpointing=False),
        peft_config=LoraConfig(
            r=setup.rank, lora_alpha=setup.alpha, target_modules=["q_proj", "v_proj"], lora_dropout=0.0, task_type="CAUSAL_LM"
        ),
    )
    clock = watch(trainer)
    trainer.train()
    trainer.save_model(f"{setup.out}/adapter")
    clock.write()


if __name__ == "__main__":
    main()
