"""The rows as LitGPT's SFTDataset gives them, each asked for once. Not packed: it does not pack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from litgpt.data import SFTDataset
from litgpt.tokenizer import Tokenizer

from peers import task
from peers.preparing import timed


def main() -> None:
    setup = task.read()

    def prepare() -> dict[str, Any]:
        found = [json.loads(line) for line in Path(setup.rows).read_text(encoding="utf-8").split("\n") if line]
        rows = [{key: row[key] for key in ("instruction", "input", "output")} for row in found]
        done = SFTDataset(rows, Tokenizer(setup.model), "alpaca", max_seq_length=setup.max_tokens)
        return {"rows": len(done), "tokens": sum(len(done[place]["input_ids"]) for place in range(len(done)))}

    timed(prepare)


if __name__ == "__main__":
    main()
