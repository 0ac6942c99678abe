"""Suites that the product makes itself: questions of the toy world, and held-out rows of sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from babeltune.data import filters, sources, toyworld
from babeltune.data.preparing import conversations, heldout_fraction
from babeltune.errors import EvalError, problem
from babeltune.options import RunConfig, SourceConfig
from babeltune.records import Conversation, Item, Message
from babeltune.suites import ToySuite


def toy(config: RunConfig) -> list[Item]:
    """Generated questions, so many in each language."""
    assert isinstance(config.evaluation, ToySuite)
    return [item for language in config.evaluation.languages for item in _toy(language, config.evaluation.max_items)]


def heldout(config: RunConfig) -> list[Item]:
    """The held-out rows of those sources that can be had."""
    there = sources.present(config.evaluation.sources, Path(config.paths.data))
    return [item for source in there.values() for item in _heldout(source, config)]


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
