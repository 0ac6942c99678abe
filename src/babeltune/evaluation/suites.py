"""The items that cells are judged on. The same items for every cell of a comparison, and none of them trained on by any."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from babeltune.data import filters, sources, toyworld
from babeltune.data.preparing import conversations, heldout_fraction
from babeltune.errors import EvalError, problem
from babeltune.options import RunConfig, SourceConfig
from babeltune.records import Conversation, Item, Message

log = logging.getLogger(__name__)


def items(config: RunConfig) -> list[Item]:
    """The items of the configured suite, in a fixed order. Raises EvalError when there are none."""
    match config.evaluation.kind:
        case "none":
            return []
        case "toy":
            found = [item for language in config.evaluation.languages for item in _toy(language, config.evaluation.max_items)]
        case "heldout":
            there = sources.present(config.evaluation.sources, Path(config.paths.data))
            found = [item for source in there.values() for item in _heldout(source, config)]
        case other:
            raise EvalError(problem("evaluation.kind", repr(other), "toy, heldout or none", "evaluation=toy"))
    if not found:
        raise EvalError(
            problem(
                f"evaluation={config.evaluation.name}",
                "no items",
                "at least one",
                "another suite or a larger data.heldout_fraction",
            )
        )
    return [_asked(item, config.evaluation.prompt) for item in found]


def _asked(item: Item, prompt: str) -> Item:
    """The item with its question, and its input where the prompt has a place for it, put into `prompt`."""
    *before, question = item.messages
    words = {"question": question.text, "input": question.input}
    text = re.sub(r"\{(question|input)\}", lambda place: words[place[1]], prompt)
    message = replace(question, text=text, input="" if "{input}" in prompt else question.input)
    return replace(item, messages=(*before, message))


def _toy(language: str, count: int) -> Iterator[Item]:
    for row in toyworld.test_items(language, count):
        message = Message("user", row["instruction"], input=row["input"])
        yield Item(row["id"], (message,), row["output"], row["task"], language)


def _heldout(source: SourceConfig, config: RunConfig) -> list[Item]:
    """The held-out first turns of a source, one for each prompt, the lowest hashes first: a smaller suite is part of a larger one.

    Which they are, and what they are called, depends on what the rows say and not on their order.
    """
    fraction = heldout_fraction(source, config)
    if fraction == 0:
        where, hint = "data.heldout_fraction", "data.heldout_fraction=0.02"
        if source.toy is not None:
            where, hint = f"evaluation.sources.{source.name}", "evaluation=toy, which has items of its own"
        raise EvalError(problem(where, 0, "a share for evaluation=heldout to take its items from", hint))
    found: dict[int, Item] = {}
    for row in conversations(source, Path(config.paths.data), config.data.max_bad_fraction):
        if isinstance(row, Conversation) and filters.is_heldout(row, fraction):
            number = filters.prompt_hash(row)
            item = _first_turn(row, number)
            if item is not None:
                found[number] = min(item, found.get(number, item), key=lambda one: (one.reference, repr(one.messages)))
    return [found[number] for number in sorted(found)[: config.evaluation.max_items]]


def _first_turn(conversation: Conversation, number: int) -> Item | None:
    """A conversation's first question with its answer; None for a document, which asks nothing."""
    messages = conversation.messages
    if messages[0].role == "text":
        return None
    end = 2 if messages[0].role == "system" else 1
    name = f"{conversation.source}:{number:016x}"
    return Item(name, messages[:end], messages[end].text, conversation.source, conversation.language)


def answered(item: Item) -> tuple[Message, ...]:
    """An item with its reference as the answer, for measuring its loss."""
    return (*item.messages, Message("assistant", item.reference))
