"""The rows with `tokenizers` alone: encoded a thousand at a time, masked, laid one after another into rows of the length."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from peers import task
from peers.preparing import timed

CHUNK = 1000


def main() -> None:
    setup = task.read()

    def prepare() -> dict[str, Any]:
        tokenizer = Tokenizer.from_file(f"{setup.model}/tokenizer.json")
        marks = json.loads((Path(setup.model) / "tokenizer_config.json").read_text(encoding="utf-8"))
        eos = tokenizer.token_to_id(marks["eos_token"])
        rows = [json.loads(line) for line in Path(setup.rows).read_text(encoding="utf-8").split("\n") if line]
        ids, is_target, starts, room = array("i"), bytearray(), array("i"), 0
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            prompts = tokenizer.encode_batch_fast([row["prompt"] for row in chunk])
            wholes = tokenizer.encode_batch_fast([row["prompt"] + row["output"] for row in chunk])
            for prompt, whole in zip(prompts, wholes, strict=True):
                found = [*whole.ids, eos][: setup.max_tokens]
                if len(found) > room:
                    starts.append(len(ids))
                    room = setup.max_tokens
                room -= len(found)
                ids.extend(found)
                masked = min(len(prompt.ids), len(found))
                is_target += bytes(masked) + b"\1" * (len(found) - masked)
        return {"rows": len(rows), "tokens": len(ids), "packed_rows": len(starts)}

    timed(prepare)


if __name__ == "__main__":
    main()
