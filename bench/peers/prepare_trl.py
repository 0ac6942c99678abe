"""The rows as TRL's SFTTrainer prepares them before it trains; with the argument `packed`, into rows of the length."""

from __future__ import annotations

import sys
from typing import Any

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from peers import task
from peers.preparing import timed


def main(how: str) -> None:
    setup = task.read()
    model = AutoModelForCausalLM.from_pretrained(setup.model)
    tokenizer = AutoTokenizer.from_pretrained(setup.model)
    arguments = SFTConfig(
        output_dir=setup.out,
        max_length=setup.max_tokens,
        packing=how == "packed",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )

    def prepare() -> dict[str, Any]:
        rows = load_dataset("json", data_files=setup.rows, split="train", cache_dir=setup.out)
        rows = rows.rename_column("output", "completion").select_columns(["prompt", "completion"])
        done = SFTTrainer(model=model, processing_class=tokenizer, train_dataset=rows, args=arguments).train_dataset
        return {"rows": len(done), "tokens": sum(map(len, done.with_format("numpy")["input_ids"]))}

    timed(prepare)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "apart")
