"""A finished grid with everything that a report shows: invented answers, curves, ledgers, cleaning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from babeltune.records import Item, LedgerRow, Message, MixLedger, Reply, Sample, StepReport
from babeltune.results import write_json, write_replies
from tests.finished import finish, note, score

SCRIPT = '<script>alert("1")</script>'
CATEGORIES = ("开放问答", "dịch tiếng Việt", "math & logic")
CELLS = [
    ["data=toy_zh", "evaluation=toy_zh", "seed=0"],
    ["data=toy_zh", "evaluation=toy_zh", "seed=1"],
    ["data=toy_zh_noisy", "evaluation=toy_zh", "seed=0"],
    ["data=toy_en", "evaluation=toy_zh", "seed=0"],
]
"""The last one is never finished."""


def items(count: int = 8) -> list[Item]:
    """So many of each category."""
    return [
        Item(
            f"{place}-{number}",
            (Message("user", f"问题 {number}: đúng không?", input="<b>x</b>"),),
            f"答案{number}",
            category,
            "zh" if place else "vi",
        )
        for place, category in enumerate(CATEGORIES)
        for number in range(count)
    ]


def ledger() -> dict[str, Any]:
    row = LedgerRow("toy_zh", "zh", "all", 120, 110, 4, 110, 5_000, 2_000, 1.0, dropped={"empty answer": 6})
    samples = {"personal data": [Sample("toy_zh:7", f"call me {SCRIPT}", None, "a telephone number")]}
    step = StepReport("toy_zh", "personal", "personal", 120, 119, 0, {"personal data": 1}, {"seconds": 2}, samples)
    return asdict(MixLedger((row,), 1.0, ("toy_zh: 120 rows of 48,818",), (step,)))


def grid(outputs: Path, asked: list[Item] | None = None) -> str:
    """Write the grid below a folder. Returns its name."""
    questions = items() if asked is None else asked
    for place, cell in enumerate(CELLS[:-1]):
        values = {item.id: float((number * 7 + place * 3) % 10 > 4) * 100 for number, item in enumerate(questions)}
        scores = [score("toy_zh/exact_match", values)]
        folder = finish(cell, scores, outputs, (f"scale=quick {SCRIPT}",), ledger=ledger(), url="https://wandb.ai/x/y")
        answer(folder, questions, {item.id: f"{SCRIPT} 回答 {place}" for item in questions})
        curve(folder, place)
        write_json(
            folder / "identity.json", {"identity": "1", "parts": {"base": "b" * 64, "sources": {"toy_zh": {"bytes": "d" * 64}}}}
        )
    return note(CELLS, outputs).stem


def answer(folder: Path, questions: list[Item], said: Mapping[str, str]) -> None:
    """A finished cell's questions and answers, every third of them cut off."""
    (judged,) = (folder / "evaluations").iterdir()
    write_json(judged / "items.json", [asdict(item) for item in questions])
    replies = [Reply(item.id, said[item.id], "stop" if place % 3 else "length", 5) for place, item in enumerate(questions)]
    write_replies(judged / "replies.jsonl", replies)


def curve(folder: Path, place: int, steps: int = 400) -> None:
    """Losses of two sources, and half a line at the end."""
    lines = [
        {
            "step": step,
            "train/loss": 3 / step + place,
            "train/loss_toy_zh": 3 / step,
            "train/loss_中文": 4 / step,
            "train/tokens": 9,
        }
        for step in range(1, steps + 1)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"step": 401, "train/lo', encoding="utf-8")
