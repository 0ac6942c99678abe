"""What the cells answered to the same questions, side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from babeltune.records import Reply
from babeltune.reporting import gathering
from babeltune.reporting.gathering import Gathered, Shown
from babeltune.results import read_replies
from babeltune.tables import number

PER_CATEGORY = 5
"""Questions shown of each category, at most."""
BUDGET = 240_000
"""Characters of questions and answers in a page."""
LONGEST, SHORTEST = 1_500, 250
"""Characters of one text: fewer where there are many, and fewer questions before it is less than `SHORTEST`."""


@dataclass(frozen=True, slots=True)
class Answer:
    label: str
    text: str
    score: str
    """The item's own, as the table's metric has it; empty where it was not scored."""
    note: str
    """`cut` for an answer that did not end by itself."""


@dataclass(frozen=True, slots=True)
class Question:
    id: str
    language: str
    turns: tuple[tuple[str, str], ...]
    """Who speaks and what."""
    reference: str
    answers: tuple[Answer, ...]


def sampled(cells: Gathered) -> dict[str, list[Question]]:
    """By category, questions that every finished row has answered: which ones depends on their ids alone."""
    shown = [(cell, found) for cell in cells.firsts if (found := _replies(cell))]
    if not shown:
        return {}
    asked = {item["id"]: item for item in gathering.items(shown[0][0])}
    shared = set(asked).intersection(*(replies for _, replies in shown))
    by_category: dict[str, list[str]] = {}
    for name in sorted(shared, key=lambda one: hashlib.sha256(one.encode()).digest()):
        by_category.setdefault(asked[name]["category"], []).append(name)
    order = [category for category in dict.fromkeys(item["category"] for item in asked.values()) if category in by_category]
    count, longest = _sizes([len(by_category[category]) for category in order], len(shown) + 2)
    return {
        category: [_question(asked[name], shown, cells.main, longest) for name in by_category[category][:count]]
        for category in order
    }


def _sizes(available: Sequence[int], texts: int) -> tuple[int, int]:
    """Questions of each category and characters of each text, so that all of it stays within the budget.

    >>> _sizes([100, 3], texts=4)
    (5, 1500)
    """
    count = longest = 0
    for count in range(PER_CATEGORY, 0, -1):
        longest = BUDGET // max(1, texts * sum(min(count, there) for there in available))
        if longest >= SHORTEST:
            break
    return count, min(LONGEST, longest)


def _replies(cell: Shown) -> Mapping[str, Reply]:
    path = cell.judged / "replies.jsonl"
    return {reply.item: reply for reply in read_replies(path)} if path.is_file() else {}


def _question(
    item: Mapping[str, Any], shown: Sequence[tuple[Shown, Mapping[str, Reply]]], main: str | None, longest: int
) -> Question:
    turns = tuple(
        (turn["role"], _cut("\n".join(filter(None, (turn["text"], turn["input"]))), longest)) for turn in item["messages"]
    )
    answers = tuple(_answer(cell, replies[item["id"]], main, longest) for cell, replies in shown)
    return Question(item["id"], item["language"], turns, _cut(item["reference"], longest), answers)


def _answer(cell: Shown, reply: Reply, main: str | None, longest: int) -> Answer:
    score = cell.scores.get(main) if main else None
    value = score.items.get(reply.item) if score is not None else None
    return Answer(cell.label, _cut(reply.text, longest), number(value, digits=2), "cut" if reply.finish == "length" else "")


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text) - longest:,} more characters)"
