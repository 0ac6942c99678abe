"""The items that cells are judged on. The same items for every cell of a comparison, and none of them trained on by any."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from babeltune.data import filters, sources, toyworld
from babeltune.data.preparing import conversations
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
            found = [item for source in present(config).values() for item in _heldout(source, config)]
        case other:
            raise EvalError(problem("evaluation.kind", repr(other), "toy, heldout or none", "evaluation=toy"))
    if not found:
        raise EvalError(
            problem(f"evaluation={config.evaluation.name}", "no items", "at least one", "another suite or a larger data.heldout_fraction")
        )
    return found


def present(config: RunConfig) -> dict[str, SourceConfig]:
    """The suite's sources that can be had: a card without a hub id whose folder is not there leaves the suite, and the log says so."""
    root = Path(config.paths.data)
    there = {}
    for name, source in config.evaluation.sources.items():
        if source.toy is not None or source.hub_id is not None or sources.locate(source, root):
            there[name] = source
        else:
            log.warning("%s is not below %s and has no hub id: it is left out of evaluation=%s", name, root, config.evaluation.name)
    return there


def _toy(language: str, count: int) -> Iterator[Item]:
    for row in toyworld.test_items(language, count):
        message = Message("user", row["instruction"], input=row["input"])
        yield Item(row["id"], (message,), row["output"], row["task"], language)


def _heldout(source: SourceConfig, config: RunConfig) -> list[Item]:
    """The held-out single turns of a source, the lowest hashes first: a smaller suite is part of a larger one."""
    if config.data.heldout_fraction == 0:
        raise EvalError(
            problem("data.heldout_fraction", 0, "a share for evaluation=heldout to take its items from", "data.heldout_fraction=0.02")
        )
    chosen: list[tuple[int, Item]] = []
    for row in conversations(source, Path(config.paths.data), config.data.max_bad_fraction):
        if isinstance(row, Conversation) and filters.is_heldout(row, config.data.heldout_fraction):
            item = _first_turn(row)
            if item is not None:
                chosen.append((filters.prompt_hash(row), item))
    chosen.sort(key=lambda pair: (pair[0], pair[1].id))
    return [item for _, item in chosen[: config.evaluation.max_items]]


def _first_turn(conversation: Conversation) -> Item | None:
    """A conversation's first question with its answer."""
    messages = list(conversation.messages)
    start = 1 if messages[0].role == "system" else 0
    if len(messages) < start + 2 or messages[start].role != "user":
        return None
    place = f"{conversation.source}:{conversation.place.rsplit(':', 1)[-1]}"
    return Item(place, tuple(messages[: start + 1]), messages[start + 1].text, conversation.source, conversation.language)


def answered(item: Item) -> tuple[Message, ...]:
    """An item with its reference as the answer, for measuring its loss."""
    return (*item.messages, Message("assistant", item.reference))
