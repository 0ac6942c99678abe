"""The items that cells are judged on: the same for every cell of a comparison, and none of them trained on by any."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from babeltune.errors import EvalError, problem
from babeltune.evaluation.suites import choices, code, fewshot, own, preferences, rows, rowscores
from babeltune.options import RunConfig
from babeltune.records import Item, Message, Reply, Score, Verdict


@dataclass(frozen=True, slots=True)
class Suite:
    """How one kind of suite asks and counts."""

    items: Callable[[RunConfig], list[Item]]
    """The items, in a fixed order."""
    asks: Literal["reply", "choice"] = "reply"
    """reply: the model writes an answer; choice: the likeliest of an item's labels is its answer."""
    scores: Callable[[RunConfig, Sequence[Item], Sequence[Reply], Mapping[str, Verdict]], list[Score]] | None = None
    """The suite's own scores, the main one first; None for the configured metrics over all items and by language."""
    verbatim: bool = False
    """Keep the white space around a reply: in a program it has a meaning."""
    answers: Callable[[RunConfig, list[Reply]], list[Reply]] = lambda config, replies: replies
    """What of the replies is the answer that is scored and judged."""
    ready: Callable[[RunConfig], None] = lambda config: None
    """Raises what would keep replies from being scored, before anything is trained."""


SUITES: dict[str, Suite] = {
    "none": Suite(lambda config: []),
    "toy": Suite(own.toy),
    "heldout": Suite(own.heldout),
    "rows": Suite(rows.items, scores=rowscores.scores, answers=rows.answers),
    "choices": Suite(choices.items, scores=choices.scores),
    "fewshot": Suite(fewshot.items, scores=fewshot.scores),
    "code": Suite(code.items, scores=code.scores, verbatim=True, ready=code.ready),
    "preferences": Suite(preferences.items, asks="choice", scores=preferences.scores),
}
"""By `evaluation.kind`. A new kind is a class in `babeltune.suites` and a line here."""


def suite(config: RunConfig) -> Suite:
    """The configured suite."""
    return SUITES[config.evaluation.kind]


def items(config: RunConfig) -> list[Item]:
    """The items of the configured suite, in a fixed order. Raises EvalError when there are none."""
    there = found(config)
    if not there and config.evaluation.kind != "none":
        hint = "another suite or a larger data.heldout_fraction"
        raise EvalError(problem(f"evaluation={config.evaluation.name}", "no items", "at least one", hint))
    return there


def found(config: RunConfig) -> list[Item]:
    """The items of the configured suite, as many as there are."""
    return [asked(item, config.evaluation.prompt) for item in suite(config).items(config)]


def asked(item: Item, prompt: str) -> Item:
    """The item with its question, and its input where the prompt has a place for it, put into `prompt`."""
    *before, question = item.messages
    words = {"question": question.text, "input": question.input}
    text = re.sub(r"\{(question|input)\}", lambda place: words[place[1]], prompt)
    message = replace(question, text=text, input="" if "{input}" in prompt else question.input)
    return replace(item, messages=(*before, message))


def answered(item: Item) -> tuple[Message, ...]:
    """An item with its reference as the answer, for measuring its loss."""
    return (*item.messages, Message("assistant", item.reference))
