"""Recorded answers → replies: what any system said, found again by an item's id or by its question."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from babeltune.data import reading
from babeltune.errors import DataError, EvalError, problem
from babeltune.evaluation import suites
from babeltune.options import RunConfig
from babeltune.records import Dropped, Item, Reply, Row

log = logging.getLogger(__name__)

NAMES = ("item", "question_id", "id")
"""What a row may call its item's id."""
QUESTIONS = ("instruction", "question", "prompt")
"""What it may call the question; an `input` follows it."""
ANSWERS = ("answer", "text", "output", "reply", "response")
"""What it may call the answer. Null is no answer, an empty text is one."""
AS_IT_IS = "{question}"
"""The `evaluation.prompt` that is the question alone: what others were asked."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One row of a file."""

    place: str
    name: str | None
    question: str | None
    """As `plain` leaves it."""
    reply: Reply


def recorded(config: RunConfig, items: Sequence[Item]) -> list[Reply]:
    """The replies in `model.answers` to those items that have one, in the items' order.

    A row belongs to the item that has its id, or the number of its question; else to each that asks its question, but for width
    of letters and white space. Raises EvalError for a row that is none, for two answers to one item, for a row whose id and
    question are two items', for a suite that needs probabilities which the file does not have, and when no row fits any item.
    """
    assert config.model.answers is not None
    path = Path(config.model.answers).expanduser()
    named = {name: item for item in items for name in _names(item)}
    asking: dict[str, list[Item]] = {}
    plain_config = replace(config, evaluation=replace(config.evaluation, prompt=AS_IT_IS))
    for item in items if config.evaluation.prompt == AS_IT_IS else suites.items(plain_config):
        asking.setdefault(question_of(item), []).append(item)
    found: dict[str, Answer] = {}
    count = 0
    for answer in _answers(path):
        count += 1
        for item in _items(answer, named, asking):
            other = found.setdefault(item.id, answer)
            if other.reply.text != answer.reply.text:
                expected = "one answer to an item"
                raise EvalError(
                    problem(answer.place, f"a second answer to {item.id}", expected, f"keeping the one at {other.place}")
                )
    if not found:
        got = f"{path} with answers ({count:,}), none of them to an item of {config.evaluation.name}"
        raise EvalError(problem("model.answers", got, "ids or questions of the suite", f"ids like {items[0].id}"))
    log.info("%s: answers to %d of %d items", path, len(found), len(items))
    replies = [replace(found[item.id].reply, item=item.id) for item in items if item.id in found]
    _check_choices(config, path, replies)
    return replies


def question_of(item: Item) -> str:
    """What an item asks, as questions are compared: its turns, without a system message."""
    turns = (text for message in item.messages if message.role != "system" for text in (message.text, message.input) if text)
    return plain("\n".join(turns))


def plain(text: str) -> str:
    """A text without what files of one benchmark differ in: width of letters, composed accents, white space.

    >>> plain("你好 ，\\nＡ") == plain("你好,A")
    True
    """
    return "".join(unicodedata.normalize("NFKC", text).split())


def _names(item: Item) -> Iterator[str]:
    yield item.id
    if (number := item.facts.get("question_id")) is not None:
        yield str(number)


def _items(answer: Answer, named: dict[str, Item], asking: dict[str, list[Item]]) -> list[Item]:
    """The items that a row answers; none for a question that the suite does not ask."""
    own = named.get(answer.name) if answer.name is not None else None
    asked = asking.get(answer.question, []) if answer.question is not None else []
    if own is None or not asked:
        return asked if own is None else [own]
    if own.id not in [item.id for item in asked]:
        got = f"the id of {own.id} with the question of {asked[0].id}"
        raise EvalError(problem(answer.place, got, "an id and a question of one item", "leaving out ids that are not the suite's"))
    return [own]


def _answers(path: Path) -> Iterator[Answer]:
    for row in _rows(path):
        fields = row.fields
        keys = [key for key in ANSWERS if key in fields]
        name = next((fields[key] for key in NAMES if fields.get(key) is not None), None)
        question = next((fields[key] for key in QUESTIONS if isinstance(fields.get(key), str)), None)
        if not keys or not (name is None or isinstance(name, str | int)) or (name is None and question is None):
            raise _wrong(row)
        text = fields[keys[0]]
        if text is None:
            continue
        if not isinstance(text, str):
            raise _wrong(row)
        whole = question if question is None or not fields.get("input") else f"{question}\n{fields['input']}"
        yield Answer(row.place, None if name is None else str(name), None if whole is None else plain(whole), _reply(row, text))


def _reply(row: Row, text: str) -> Reply:
    """A reply of one of our own files as it was; of another file what is known."""
    fields = row.fields
    tokens = fields.get("num_tokens")
    return Reply(
        item="",
        text=text,
        finish="length" if fields.get("finish") == "length" else "stop",
        num_tokens=tokens if isinstance(tokens, int) else 0,
        logprobs=tuple(fields.get("logprobs") or ()),
    )


def _check_choices(config: RunConfig, path: Path, replies: Sequence[Reply]) -> None:
    if suites.suite(config).asks == "choice" and not all(reply.logprobs for reply in replies):
        got = f"{path} without the log-probability of each label, for {config.evaluation.name}"
        raise EvalError(
            problem("model.answers", got, "a replies.jsonl of a cell on this suite", "a suite that is answered in words")
        )


def _rows(path: Path) -> Iterator[Row]:
    try:
        for row in reading.read(path, "utf-8"):
            if isinstance(row, Dropped):
                raise EvalError(problem(row.place, row.reason, "a JSON object on each line", "repairing the line"))
            yield row
    except (OSError, DataError) as error:
        got = f"{path}, which cannot be read ({getattr(error, 'strerror', None) or error})"
        raise EvalError(problem("model.answers", got, "a file of JSON Lines", "model.answers=FILE.jsonl")) from error


def _wrong(row: Row) -> EvalError:
    expected = f"an id ({', '.join(NAMES)}) or a question ({', '.join(QUESTIONS)}), and an answer ({', '.join(ANSWERS)})"
    return EvalError(problem(row.place, f"keys {', '.join(sorted(row.fields)) or 'none'}", expected, "renaming its keys"))
