"""The rows as torchtune's alpaca_dataset gives them; with the argument `packed`, as its PackedDataset lays them out."""

from __future__ import annotations

import sys
from typing import Any

from torchtune.datasets import alpaca_dataset
from torchtune.models.llama2 import llama2_tokenizer

from peers import task
from peers.preparing import timed


def main(how: str) -> None:
    setup = task.read()

    def prepare() -> dict[str, Any]:
        tokenizer = llama2_tokenizer(f"{setup.model}/tokenizer.model", max_seq_len=setup.max_tokens)
        packed = how == "packed"
        done = alpaca_dataset(
            tokenizer, source="json", data_files=setup.rows, train_on_input=False, packed=packed, cache_dir=setup.out
        )
        return {"rows": len(done), "tokens": sum(len(done[place]["tokens"]) for place in range(len(done)))}

    timed(prepare)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "apart")
