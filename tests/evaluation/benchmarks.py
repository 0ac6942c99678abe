"""Rows in the shape of published benchmarks, written for the tests, and configs that ask them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from babeltune.config import compose
from babeltune.options import RunConfig
from babeltune.records import Reply


def write(root: Path, source: str, **files: list[dict[str, Any]]) -> None:
    """A source's folder with its files."""
    folder = root / source
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def config(root: Path, suite: str, *overrides: str) -> RunConfig:
    return compose([f"evaluation={suite}", f"paths.data={root}", "logger=none", *overrides])


def replies(texts: dict[str, str]) -> list[Reply]:
    return [Reply(item, text, "stop", 1) for item, text in texts.items()]


def mmlu(root: Path) -> None:
    def row(subject: str, number: int, answer: str) -> dict[str, Any]:
        return {"subject": subject, "question": f"{subject} {number}?", "A": "p", "B": "q", "C": "r", "D": "s", "answer": answer}

    subjects = ("world_lakes", "sums")
    dev = [row(subject, number, "ABCDA"[number]) for subject in subjects for number in range(5)]
    test = [row(subject, number, "C") for subject, count in zip(subjects, (3, 1), strict=True) for number in range(10, 10 + count)]
    write(root, "eval_mmlu", dev=dev, test=test, val=dev)
