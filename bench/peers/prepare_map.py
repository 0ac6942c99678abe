"""The rows with `datasets.map`: `batched`, a thousand at a time; or `rows`, one by one as alpaca-lora does. Not packed."""

from __future__ import annotations

import sys
from typing import Any

from datasets import Dataset, disable_caching, load_dataset
from transformers import AutoTokenizer

from peers import task
from peers.preparing import timed


def main(how: str) -> None:
    setup = task.read()
    disable_caching()
    tokenizer = AutoTokenizer.from_pretrained(setup.model)

    def masked(whole: list[int], count: int) -> tuple[list[int], list[int]]:
        ids = [*whole, tokenizer.eos_token_id][: setup.max_tokens]
        return ids, ([-100] * count + ids[count:])[: len(ids)]

    def one(row: dict[str, Any]) -> dict[str, Any]:
        whole = tokenizer(row["prompt"] + row["output"], truncation=True, max_length=setup.max_tokens)["input_ids"]
        ids, labels = masked(whole, len(tokenizer(row["prompt"], truncation=True, max_length=setup.max_tokens)["input_ids"]))
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}

    def many(rows: dict[str, Any]) -> dict[str, Any]:
        texts = [prompt + output for prompt, output in zip(rows["prompt"], rows["output"], strict=True)]
        wholes, prompts = tokenizer(texts)["input_ids"], tokenizer(rows["prompt"])["input_ids"]
        pairs = [masked(whole, len(prompt)) for whole, prompt in zip(wholes, prompts, strict=True)]
        return {"input_ids": [ids for ids, _ in pairs], "labels": [labels for _, labels in pairs]}

    def prepare() -> dict[str, Any]:
        rows: Dataset = load_dataset("json", data_files=setup.rows, split="train", cache_dir=setup.out)
        done = rows.map(many if how == "batched" else one, batched=how == "batched", remove_columns=rows.column_names)
        return {"rows": len(done), "tokens": sum(map(len, done.with_format("numpy")["input_ids"]))}

    timed(prepare)


if __name__ == "__main__":
    main(sys.argv[1])
