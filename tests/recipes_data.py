"""A folder of data as `paths.data` wants it: a few rows for every source card, in the card's own format, language and encoding."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from babeltune.config import CONF

ROWS = 24
"""Conversations of each source. Not what its card says, so every result is labelled as made of stand-ins."""

SAYINGS = {
    "zh": (
        "第{n}位病人（{source}）问：怎样才能睡得好？",
        "请用一句话回答。",
        "{source}：每天按时睡觉，少喝咖啡，这样第{n}个晚上就会睡得好。",
        "为什么呢？",
        "因为身体喜欢规律，第{n}天也一样。",
    ),
    "vi": (
        "Người thứ {n} ({source}) hỏi: làm sao để ngủ ngon?",
        "Hãy trả lời bằng một câu.",
        "{source}: hãy đi ngủ đúng giờ, bớt uống cà phê thì đêm thứ {n} sẽ ngủ ngon.",
        "Vì sao?",
        "Vì cơ thể thích điều độ, ngày thứ {n} cũng vậy.",
    ),
    "en": (
        "Patient number {n} ({source}) asks: how can I sleep well?",
        "Answer in one sentence.",
        "{source}: go to bed on time, drink less coffee, and night {n} will be a good one.",
        "Why?",
        "Because the body likes a rhythm, on day {n} as on any other.",
    ),
}
"""Language to a question, its input, an answer, a further question and a further answer. `{n}` is the row, `{source}` the card."""

Fields = dict[str, Any]


def write(root: Path, names: tuple[str, ...] = ()) -> Path:
    """Write the named sources, or every one of `cards()`, below `root`. Returns it."""
    for card in cards():
        if not names or card["name"] in names:
            _write_source(root / card["name"], card)
    return root


def cards() -> list[Fields]:
    """Those of the sources that are trained on and not generated. What suites ask has formats of their own."""
    found = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((CONF / "source").glob("*.yaml"))]
    return [card for card in found if "toy" not in card and not card["name"].startswith("eval_")]


def _write_source(folder: Path, card: Fields) -> None:
    folder.mkdir(parents=True)
    encoding = card.get("encoding", "utf-8")
    rows = [FORMATS[card.get("format", "alpaca")](_said(card, number)) for number in range(1, ROWS + 1)]
    rows = [_renamed(row, card.get("rename", {})) for row in rows]
    if card.get("format") == "niv2":
        rows = [_task(rows[start : start + 4]) for start in range(0, ROWS, 4)]
    if encoding != "utf-8":
        for number, row in enumerate(rows, 1):
            (folder / f"{number:03}.txt").write_text(row["text"], encoding)
    elif card.get("hub_files"):
        (folder / Path(card["hub_files"][0]).name).write_text(json.dumps(rows, ensure_ascii=False), encoding)
    else:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / "rows.jsonl").write_text(lines, encoding)


def _said(card: Fields, number: int) -> list[str]:
    """One conversation in the card's language, unlike those of other cards; a mixed card takes its languages in turn."""
    chosen = ("en", "zh")[number % 2] if card["language"] == "mixed" else card["language"]
    return [text.format(n=number, source=card["name"]) for text in SAYINGS[chosen]]


def _alpaca(said: list[str]) -> Fields:
    return {"instruction": said[0], "input": said[1], "output": said[2]}


def _prompt_response(said: list[str]) -> Fields:
    return {"prompt": said[0], "response": said[2]}


def _sharegpt(said: list[str]) -> Fields:
    roles = ("human", "gpt", "human", "gpt")
    turns = [said[0], said[2], said[3], said[4]]
    return {"id": said[0], "conversations": [{"from": role, "value": text} for role, text in zip(roles, turns, strict=True)]}


def _messages(said: list[str]) -> Fields:
    return {"messages": [{"role": "user", "content": said[0]}, {"role": "assistant", "content": said[2]}]}


def _text(said: list[str]) -> Fields:
    return {"text": "\n".join(said)}


def _instance(said: list[str]) -> Fields:
    return {"input": said[0], "output": [said[2], said[4]]}


def _task(instances: list[Fields]) -> Fields:
    """A task of Natural Instructions, as one row of its file."""
    return {"Definition": ["Read what a patient asks, and answer."], "Instances": instances}


FORMATS: dict[str, Callable[[list[str]], Fields]] = {
    "alpaca": _alpaca,
    "prompt_response": _prompt_response,
    "sharegpt": _sharegpt,
    "messages": _messages,
    "text": _text,
    "niv2": _instance,
}


def _renamed(row: Fields, names: dict[str, str]) -> Fields:
    """The row with the source's own field names in place of the format's."""
    own = {ours: theirs for theirs, ours in names.items()}
    return {own.get(key, key): value for key, value in row.items()}
